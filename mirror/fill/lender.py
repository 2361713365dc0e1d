"""A sibling as the source of one blob: it has to go on bringing something, or others are asked instead."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import NamedTuple

from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source import BlobStream, Pace
from mirror.source.sibling import SiblingBlob, SiblingBlobs

# Of the last bytes a filler shows nothing before all of them verified.
TAIL = 64 * 2**10
# A filler needs a while to replace its own source: going there beside it too soon would fetch bytes twice. That of the
# region may have to replace the one of the fleet first.
_SILENT_SECONDS = 4.0
_SILENT_LEADING_SECONDS = 8.0
_SILENT_REGIONAL_SECONDS = 12.0
_SILENT_TAIL_SECONDS = 15.0
# Less than this is next to nothing; so is, of who has it all, a small share of what the upstream is known to bring.
_LEAST_RATE = 16 * 2**10
_LEAST_FILLER_RATE = 128
_LEAST_SHARE = 1 / 8
_ENOUGH_RATE = 256 * 2**10
# Over so much time of waiting for it a rate is told.
_MEASURED_SECONDS = 8.0


class SourceLost(RegistryError):
    """A sibling failed, and is not asked for this blob again: there are others, and the upstream."""

    def __init__(self, label: str, reason: str) -> None:
        text = f"sibling {label} failed: {reason}"
        super().__init__(ErrorCode.UNAVAILABLE, text, failure=Failure.RESET, retry_after=1)


class Loss(NamedTuple):
    """Why a lender is of no use any more; `is_to_blame` if nobody but the fill can tell that it failed."""

    lender: Lender
    reason: str
    is_to_blame: bool


class Lender:
    """A sibling as a source; `chain` names whose bytes it has, the nearest first."""

    def __init__(
        self,
        source: SiblingBlobs,
        usual: Pace,
        took: Callable[[str], None],
        lose: Callable[[Loss], None],
        lives: Callable[[], bool],
        *,
        is_filler: bool,
        is_near: bool,
    ) -> None:
        """Read from `source`, which still fills the blob if it `is_filler`, in the own region if it `is_near`.

        `usual` is what the upstream brings. `took` hears from whom bytes came, and `lose` of whoever is lost. `lives`
        tells whether the fleet still hears of it.
        """
        self.sibling = source.sibling
        self.label = source.label
        self.chain: tuple[str, ...] = (source.sibling.identity,)
        self.is_filler, self.is_near = is_filler, is_near
        # What grows is read in order, over one connection but for a reader who waits further ahead.
        self.pace = Pace(1, math.inf, lambda: 2) if is_filler else source.pace
        self._source = source
        self._usual = usual
        self._took = took
        self._lose = lose
        self._lives = lives
        self._may_fail = is_near
        self._busy_since: float | None = None

    async def open(self, repository: Repository, digest: Digest, start: int, stop: int | None = None) -> BlobStream:
        """See `BlobSource`.

        Raises:
            SourceLost: whatever the sibling failed with.
        """
        try:
            stream = await self._source.open(repository, digest, start, stop)
        except RegistryError as error:
            raise self.failed(error) from None
        self._busy_since = None
        end = stream.size if stop is None or stream.size is None else min(stop, stream.size)
        if stream.start != start or stream.stop not in {None, end}:
            await stream.close(is_wrong=True)
            raise self.lost("it answered with another range", is_to_blame=True)
        self.chain = stream.chain
        return _Loan(self, stream)

    @property
    def least_rate(self) -> float:
        """How many bytes a second it has to bring."""
        if self.is_filler:
            return _LEAST_FILLER_RATE
        return max(_LEAST_RATE, min(_ENOUGH_RATE, _LEAST_SHARE * self._usual.rate))

    def took(self) -> None:
        """Note that bytes came."""
        self._took(self.sibling.identity)

    def lost(self, reason: str, *, is_final: bool = False, is_to_blame: bool = False) -> SourceLost:
        """Return the error for its failing: `is_final` if asking again is no use, as it is if it `is_to_blame`."""
        if self._may_fail and not (is_final or is_to_blame):
            self._may_fail = False
        else:
            self._lose(Loss(self, reason, is_to_blame))
        return SourceLost(self.sibling.label, reason)

    def failed(self, error: RegistryError) -> SourceLost:
        """Return the error for what the sibling failed with; who has not it, or is silent, is not asked once more."""
        if error.failure is Failure.TIMEOUT and self._is_busy():
            return SourceLost(self.sibling.label, error.message)
        return self.lost(error.message, is_final=error.failure in {None, Failure.TIMEOUT})

    def _is_busy(self) -> bool:
        """Say whether a filler that does not answer in time is asked on: going elsewhere would give all more to do."""
        if not (self.is_filler and self.is_near and self._lives()):
            return False
        now = time.monotonic()
        self._busy_since = now if self._busy_since is None else self._busy_since
        return now < self._busy_since + _SILENT_REGIONAL_SECONDS


class _Loan:
    """An open answer of a sibling, which has to go on bringing something."""

    def __init__(self, lender: Lender, stream: SiblingBlob) -> None:
        self.start, self.stop, self.size = stream.start, stream.stop, stream.size
        self._lender = lender
        self._stream = stream
        self._position = stream.start
        self._waited = 0.0
        self._brought = 0

    @property
    def waiting_since(self) -> float | None:
        """See `BlobStream`."""
        return self._stream.waiting_since

    async def read(self) -> bytes:
        """See `BlobStream`.

        Raises:
            SourceLost: whatever the sibling failed with, or it brings next to nothing.
        """
        end = self.stop if self.stop is not None else self.size
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._patience):
                piece = await self._stream.read()
        except TimeoutError:
            raise self._lender.lost("it is silent", is_to_blame=True) from None
        except RegistryError as error:
            if self._position == end:
                return b""
            raise self._lender.failed(error) from None
        self._position += len(piece)
        if end is not None and (self._position > end or (not piece and self._position < end)):
            raise self._lender.lost(f"it sent {self._position - self.start} bytes for {end - self.start}")
        if piece:
            self._lender.took()
            self._measure(time.monotonic() - began, len(piece))
        return piece

    async def close(self, *, is_wrong: bool = False) -> None:
        """See `BlobStream`."""
        await self._stream.close(is_wrong=is_wrong)

    @property
    def _patience(self) -> float:
        if not self._lender.is_filler:
            return _SILENT_SECONDS
        is_withheld = self.size is not None and self._position >= self.size - TAIL
        if is_withheld:
            return _SILENT_TAIL_SECONDS
        return _SILENT_REGIONAL_SECONDS if self._lender.is_near else _SILENT_LEADING_SECONDS

    def _measure(self, seconds: float, amount: int) -> None:
        """Give a sibling up that brings too little for the time that it was waited for.

        Raises:
            SourceLost: it does.
        """
        self._waited += seconds
        self._brought += amount
        if self._waited >= _MEASURED_SECONDS:
            if self._brought < self._lender.least_rate * self._waited:
                raise self._lender.lost("it sends next to nothing", is_to_blame=True)
            self._waited, self._brought = 0.0, 0
