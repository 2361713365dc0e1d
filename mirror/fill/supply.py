"""Where one blob comes from: chosen by what the fleet says, and anew whenever a sibling failed."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from mirror.fill.choice import Choice, choose, suspect
from mirror.fleet import Claim, Coordinator, Sibling, allowance
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source import BlobSource, BlobStream, Pace
from mirror.source.sibling import SiblingBlob, SiblingBlobs, Siblings

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
# Siblings are given up for the upstream after so many failures without a byte of theirs.
_MOST_FRUITLESS = 3
# Over so much time of waiting for it a rate is told.
_MEASURED_SECONDS = 8.0
# The leases of a region and of the fleet may each be in the hands of somebody who cannot be asked.
_MOST_CLAIMS = 4


class Fleet(NamedTuple):
    """The fleet as fills see it; `siblings` is None for a replica that has none."""

    coordinator: Coordinator
    siblings: Siblings | None = None


class SourceLost(RegistryError):
    """A sibling failed, and is not asked for this blob again: there are others, and the upstream."""

    def __init__(self, label: str, reason: str) -> None:
        text = f"sibling {label} failed: {reason}"
        super().__init__(ErrorCode.UNAVAILABLE, text, failure=Failure.RESET, retry_after=1)


class Supply:
    """The source of one blob for the time being, and the leases that go with it.

    `chain` names whose bytes these are, the nearest first, none where they are the upstream's. `followers` are the
    siblings that read this replica's growing file, `lenders` those that brought some of what is in it.
    """

    def __init__(self, fleet: Fleet, upstream: BlobSource, digest: Digest, *, may_lead: bool = True) -> None:
        """Prepare to choose; without `may_lead` no lease is taken, and nobody is told to wait for this replica."""
        self.upstream = upstream
        self.current: BlobSource | None = None
        self.chain: tuple[str, ...] = ()
        self.followers: set[str] = set()
        self.lenders: set[str] = set()
        self.has_claimed = False
        self._coordinator, self._siblings = fleet
        self._digest = digest
        self._may_lead = may_lead
        self._spared: set[str] = set()
        self._excluded: set[str] = set()
        self._fruitless = 0
        self._log = structlog.get_logger("layover.fill")

    async def choose(self) -> BlobSource:
        """Return the source to read from, another than before if that one failed."""
        if self.current is not None:
            return self.current
        # What a request may wait for the fleet in all is for the first choice: the others are made long after.
        with allowance() if self._fruitless else contextlib.nullcontext():
            choice = Choice() if self._siblings is None else await self._choice(self._siblings)
        if choice.sibling is None or self._siblings is None:
            self.current, self.chain = self.upstream, ()
        else:
            source = self._siblings.blobs(choice.sibling, self.followers)
            self.chain = (choice.sibling.identity,)
            is_near = choice.sibling.region == self._coordinator.region
            self.current = Lender(self, choice, source, is_near=is_near)
        return self.current

    @property
    def leads(self) -> bool:
        """Whether this replica has the blob from the upstream, and siblings may have it from this replica."""
        return self.has_claimed and self.current is self.upstream and bool(self._coordinator.siblings)

    def lose(self, source: Lender, reason: str, *, is_final: bool, is_to_blame: bool) -> SourceLost:
        """Return the error for a sibling that failed: it is asked for the blob once more, or if `is_final` never.

        `is_to_blame` if only the fill can tell.
        """
        sibling = source.sibling
        if source.is_near and not is_final and sibling.identity not in self._spared:
            # Who has a lot to do may not answer in time: going upstream beside it would give it more.
            self._spared.add(sibling.identity)
            return SourceLost(sibling.label, reason)
        if self.current is source:
            self.current = None
            self._fruitless += 1
            self._log.info("a sibling failed", sibling=sibling.label, digest=self._digest, reason=reason)
        if is_to_blame and self._siblings is not None and sibling.identity not in self._excluded:
            self._siblings.failed(sibling.identity)
        self._excluded.add(sibling.identity)
        return SourceLost(sibling.label, reason)

    def took(self, sibling: Sibling) -> None:
        """Note that bytes of a sibling's came."""
        self.lenders.add(sibling.identity)
        self._fruitless = 0

    def expel(self) -> None:
        """Ask none of those again whose bytes did not verify."""
        assert self._siblings is not None, "a replica without siblings has no lenders"
        for identity in self.lenders:
            self._siblings.failed(identity)
        self._excluded |= self.lenders
        self.lenders.clear()
        self.current = None

    async def end(self, size: int | None) -> None:
        """Give the leases up; `size` is that of the blob if it is held by now, whole and verified."""
        if self.has_claimed:
            await self._coordinator.yield_up(self._digest, is_held=size is not None, size=size or 0)
        elif size is not None:
            self._coordinator.holds(self._digest, size)

    async def _choice(self, siblings: Siblings) -> Choice:
        own, region = self._coordinator.identity, self._coordinator.region
        if not self._may_lead:
            claim = Claim(tuple(await self._coordinator.holders(self._digest)))
            return self._chosen(siblings, claim)
        self.has_claimed = True
        claim = await self._coordinator.claim(self._digest)
        for _ in range(_MOST_CLAIMS):
            in_the_way = suspect(claim, own, region, self._reached(siblings, claim))
            if in_the_way is None:
                break
            claim = await self._coordinator.claim(self._digest, in_the_way)
        return self._chosen(siblings, claim)

    def _chosen(self, siblings: Siblings, claim: Claim) -> Choice:
        if self._fruitless >= _MOST_FRUITLESS:
            return Choice()
        own, region = self._coordinator.identity, self._coordinator.region
        return choose(claim, own, region, self._reached(siblings, claim))

    def _reached(self, siblings: Siblings, claim: Claim) -> Sequence[Sibling]:
        """Return those of whom a claim tells that can be asked, the nearest first."""
        told = {each.identity: each for each in claim.holders}
        for filler in (claim.regional, claim.leading):
            sibling = None if filler is None else self._coordinator.siblings.get(filler.identity)
            if sibling is not None:
                told[sibling.identity] = sibling
        found = siblings.order(told.values())
        return [each for each in found if each.identity not in self._excluded]


class Lender:
    """A sibling as a source: whatever goes wrong with it, others are asked instead."""

    def __init__(self, supply: Supply, choice: Choice, source: SiblingBlobs, *, is_near: bool) -> None:
        self.sibling = source.sibling
        self.label = source.label
        self.is_filler = choice.filler is not None
        self.is_near = is_near
        # What grows is read in order, over one connection but for a reader who waits further ahead.
        self.pace = Pace(1, math.inf, lambda: 2) if self.is_filler else source.pace
        self._supply = supply
        self._source = source

    async def open(self, repository: Repository, digest: Digest, start: int, stop: int | None = None) -> BlobStream:
        """See `BlobSource`.

        Raises:
            SourceLost: whatever the sibling failed with.
        """
        try:
            stream = await self._source.open(repository, digest, start, stop)
        except RegistryError as error:
            raise self.failed(error) from None
        end = stream.size if stop is None or stream.size is None else min(stop, stream.size)
        if stream.start != start or stream.stop not in {None, end}:
            await stream.close(is_wrong=True)
            raise self.lost("it answered with another range", is_to_blame=True)
        return _Loan(self, stream)

    @property
    def least_rate(self) -> float:
        """How many bytes a second it has to bring."""
        if self.is_filler:
            return _LEAST_FILLER_RATE
        return max(_LEAST_RATE, min(_ENOUGH_RATE, _LEAST_SHARE * self._supply.upstream.pace.rate))

    def took(self) -> None:
        """Note that bytes came."""
        self._supply.took(self.sibling)

    def lost(self, reason: str, *, is_final: bool = False, is_to_blame: bool = False) -> SourceLost:
        """Return the error for its failing: `is_final` if asking again is no use, as it is if it `is_to_blame`."""
        return self._supply.lose(self, reason, is_final=is_final or is_to_blame, is_to_blame=is_to_blame)

    def failed(self, error: RegistryError) -> SourceLost:
        """Return the error for what the sibling failed with; who has not it, or is silent, is not asked once more."""
        return self.lost(error.message, is_final=error.failure in {None, Failure.TIMEOUT})

    def chained(self, chain: tuple[str, ...]) -> None:
        """Note whose bytes it has."""
        if self._supply.current is self:
            self._supply.chain = chain


class _Loan:
    """An open answer of a sibling, which has to go on bringing something."""

    def __init__(self, lender: Lender, stream: SiblingBlob) -> None:
        self.start, self.stop, self.size = stream.start, stream.stop, stream.size
        self._lender = lender
        self._stream = stream
        self._position = stream.start
        self._waited = 0.0
        self._brought = 0
        lender.chained(stream.chain)

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
