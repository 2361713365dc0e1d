"""A blob streamed through for one reader, where there is no room to store it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from mirror.fill.fill import DigestMismatch, Misled
from mirror.fill.lender import TAIL
from mirror.fill.sources import Sources
from mirror.fill.supply import Supply
from mirror.fill.transfer import Transfer
from mirror.observe.metrics import HubMetrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository

LONGEST_READ = 256 * 2**10
_WORTH_A_THREAD = 64 * 2**10


class Passage:
    """One reader's own transfer: hashed from the first byte, its tail withheld until the digest is right."""

    def __init__(
        self,
        digest: Digest,
        repository: Repository,
        supply: Supply,
        size: int | None,
        start: int,
        hashing: Executor,
        metrics: HubMetrics,
    ) -> None:
        """Prepare to pass on `digest` from byte `start` on; `size` is what a descriptor says of it."""
        self._digest = digest
        self._supply = supply
        self._sources = Sources(supply, repository, digest, size, metrics)
        self._transfer = Transfer(self._sources)
        self._hasher = digest.hasher()
        self._hashing = hashing
        self._metrics = metrics
        self._next = start
        self._kept = bytearray()
        self._kept_from = 0
        self._is_verified = False

    @property
    def size(self) -> int | None:
        """The blob's size in bytes, None while unknown."""
        return self._sources.size

    @property
    def was_opened(self) -> bool:
        """Whether the upstream was asked."""
        return self._sources.was_opened

    async def open(self) -> None:
        """Open a source that has the blob.

        Raises:
            RegistryError: none has it.
        """
        await self._transfer.open()
        while self.size == 0 and not self._is_verified:
            # Nothing can be withheld of an empty answer: it has to verify before its head goes out.
            await self._take()

    async def read(self) -> bytes:
        """Return the next bytes, at most 256 KiB; nothing at the end.

        Raises:
            RegistryError: every source failed, or the digest did not verify.
        """
        while True:
            end = min(self._releasable_end(), self._next + LONGEST_READ)
            if end > self._next:
                first = self._next - self._kept_from
                piece = bytes(self._kept[first : end - self._kept_from])
                del self._kept[: end - self._kept_from]
                self._kept_from = self._next = end
                return piece
            if self._is_verified:
                return b""
            await self._take()

    async def close(self) -> None:
        """Give the passage up."""
        await self._transfer.close()

    def _releasable_end(self) -> int:
        end = self._kept_from + len(self._kept)
        if self._is_verified:
            return end
        return min(end, (self.size if self.size is not None else end) - TAIL)

    async def _take(self) -> None:
        piece = await self._transfer.read()
        if piece:
            if len(piece) >= _WORTH_A_THREAD:
                await asyncio.get_running_loop().run_in_executor(self._hashing, self._hasher.update, piece)
            else:
                self._hasher.update(piece)
            self._kept += piece
            surplus = min(self._next - self._kept_from, len(self._kept))
            if surplus > 0:
                del self._kept[:surplus]
                self._kept_from += surplus
        elif self._digest.matches(self._hasher):
            self._is_verified = True
        else:
            is_lent = bool(self._supply.lenders)
            self._metrics.digest_mismatches.labels("" if is_lent else self._sources.label).inc()
            if is_lent:
                self._supply.expel()
                raise Misled(self._digest)
            raise DigestMismatch(self._digest, was_resumed=False)
