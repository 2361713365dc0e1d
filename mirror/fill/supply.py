"""Where one blob comes from: chosen by what the fleet says, and anew whenever a sibling failed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from mirror.fill.choice import Choice, choose, suspect
from mirror.fill.lead import Bound, Lead, Leads
from mirror.fill.lender import Lender, Loss
from mirror.fleet import Claim, Coordinator, Filler, Sibling, allowance
from mirror.oci.digest import Digest
from mirror.source import BlobSource
from mirror.source.sibling import Siblings

# Siblings are given up for the upstream after so many failures without a byte of theirs.
_MOST_FRUITLESS = 3
# Of several who may take over from one that died, who has nothing of the blob waits for so long,
_LACKING_SECONDS = 1.0
# and so much longer who was farther from it than others.
_FARTHER_SECONDS = 0.5
# The leases of a region and of the fleet may each be in the hands of somebody who cannot be asked.
_MOST_CLAIMS = 4
# How often it is looked whether siblings have caught up, or fill it instead.
_LOOK_SECONDS = 0.05


class Fleet(NamedTuple):
    """The fleet as fills see it: one for all of a replica's. `siblings` is None for a replica that has none."""

    coordinator: Coordinator
    leads: Leads
    siblings: Siblings | None = None


class Supply:
    """The source of one blob for the time being, and the leases that go with it.

    `followers` are the siblings that read this replica's growing file, `lenders` those that brought some of what is in
    it.
    """

    def __init__(self, fleet: Fleet, upstream: BlobSource, digest: Digest, *, may_lead: bool = True) -> None:
        """Prepare to choose; without `may_lead` no lease is taken, and nobody is told to wait for this replica."""
        self.upstream = upstream
        self.current: BlobSource | None = None
        self.followers: set[str] = set()
        self.lenders: set[str] = set()
        self._coordinator, self._leads, self._siblings = fleet
        self._digest = digest
        self._may_lead = may_lead
        self._has_claimed = False
        self._lead: Lead | None = None
        self._excluded: set[str] = set()
        self._fruitless = 0
        self._log = structlog.get_logger("layover.fill")

    async def choose(self, there: int = 0, size: int | None = None) -> BlobSource:
        """Return the source to read from, another than before if that one failed.

        So many bytes of the blob are `there`; its `size` is None where it is unknown.
        """
        if self.current is not None:
            return self.current
        choice = Choice()
        if self._siblings is not None:
            # What a request may wait for the fleet in all is for the first choice: the others are made long after.
            with allowance() if self._fruitless else contextlib.nullcontext():
                choice = await self._choice(self._siblings, there, size)
        sibling = choice.sibling
        if sibling is None or self._siblings is None:
            self.current = self.upstream
            if self._lead is not None:
                self._lead.begin(time.monotonic())
        else:
            self._lag()
            self.current = Lender(
                self._siblings.blobs(sibling, self.followers),
                self.upstream.pace,
                self._took,
                self._lose,
                lambda: sibling.identity in self._coordinator.siblings,
                is_filler=choice.filler is not None,
                is_near=sibling.region == self._coordinator.region,
            )
        return self.current

    @property
    def chain(self) -> tuple[str, ...]:
        """Whose bytes these are: siblings by their identities, the nearest first; none: the upstream's."""
        return self.current.chain if isinstance(self.current, Lender) else ()

    def bound(self, size: int, first_missing: int) -> Bound | None:
        """Return how far the upstream may be asked on, of a blob whose first missing byte that is; None: to its end."""
        if self._lead is None:
            return None
        return self._leads.bound(self._lead, size, first_missing, time.monotonic())

    def copied(self, offset: int) -> None:
        """Note that a sibling has the bytes before `offset`."""
        if self._lead is not None:
            self._leads.copied(self._lead, offset, time.monotonic())

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
        if size is None:
            self._lag()
        elif self._lead is not None:
            self._lead.end(size)
        if self._has_claimed:
            await self._coordinator.yield_up(self._digest, is_held=size is not None, size=size or 0)
        elif size is not None:
            self._coordinator.holds(self._digest, size)

    async def _choice(self, siblings: Siblings, there: int, size: int | None) -> Choice:
        own, region = self._coordinator.identity, self._coordinator.region
        if self._may_lead:
            claim = await self._claim(siblings, there, size)
        else:
            claim = Claim(tuple(await self._coordinator.holders(self._digest)))
        if self._fruitless >= _MOST_FRUITLESS:
            return Choice()
        return choose(claim, own, region, self._reached(siblings, claim))

    async def _claim(self, siblings: Siblings, there: int, size: int | None) -> Claim:
        """Ask for the leases, also for those of whoever cannot be asked for bytes.

        Others that have more may take them first: it would be fetched again.
        """
        own, region = self._coordinator.identity, self._coordinator.region
        self._has_claimed = True
        if self._lead is None and self._coordinator.siblings:
            self._lead = self._leads.enter(self._digest, size, time.monotonic())
        claim = Claim()
        if self._lead is not None and not self._fruitless:
            claim = await self._led_by_others(self._lead)
        if claim == Claim():
            claim = await self._coordinator.claim(self._digest)
        lacking = 1 - there / size if size else 0.0
        for _ in range(_MOST_CLAIMS):
            in_the_way = suspect(claim, own, region, self._reached(siblings, claim))
            if in_the_way is None:
                break
            if self._fruitless:
                await asyncio.sleep(self._hesitation(in_the_way, lacking))
            claim = await self._coordinator.claim(self._digest, in_the_way)
        return claim

    async def _led_by_others(self, lead: Lead) -> Claim:
        """Wait until this replica may lead with one more, or others do, or have it: that is what is returned."""
        while not await self._may_begin(lead):
            with allowance():
                claim = await self._coordinator.claim(self._digest, may_lead=False)
            if claim != Claim():
                return claim
            await asyncio.sleep(_LOOK_SECONDS)
        lead.begin(time.monotonic())
        return Claim()

    async def _may_begin(self, lead: Lead) -> bool:
        """Say whether one more may be led with; who has copied by now what went before is looked up."""
        if not self._leads.is_far_ahead(lead, time.monotonic()):
            return True
        if digests := self._leads.unsure(time.monotonic(), _LOOK_SECONDS):
            with allowance():
                copies = await self._coordinator.copies(digests)
            self._leads.found([each for each in digests if copies.get(each)], time.monotonic())
        now = time.monotonic()
        return not (self._leads.is_far_ahead(lead, now) and self._leads.waits(now))

    def _lag(self) -> None:
        """Count as somebody who leads no more."""
        if self._lead is not None:
            self._leads.leave(self._lead)
            self._lead = None

    def _hesitation(self, lost: Filler, lacking: float) -> float:
        """Return how long to wait for others that may take over from a filler: those who are likely to have more."""
        siblings = self._coordinator.siblings
        region = siblings[lost.identity].region if lost.identity in siblings else self._coordinator.region
        others = {each.region for identity, each in siblings.items() if identity != lost.identity}
        is_farther = region != self._coordinator.region and region in others
        return lacking * _LACKING_SECONDS + is_farther * _FARTHER_SECONDS

    def _reached(self, siblings: Siblings, claim: Claim) -> Sequence[Sibling]:
        """Return those of whom a claim tells that can be asked, the nearest first."""
        told = {each.identity: each for each in claim.holders}
        for filler in (claim.regional, claim.leading):
            sibling = None if filler is None else self._coordinator.siblings.get(filler.identity)
            if sibling is not None:
                told[sibling.identity] = sibling
        found = siblings.order(told.values())
        regional = told.get(claim.regional.identity) if claim.regional is not None else None
        if regional is not None and regional not in found:
            # Who is left alone as it failed with another blob, and still beats, may only have much to do.
            found.insert(0, regional)
        return [each for each in found if each.identity not in self._excluded]

    def _took(self, identity: str) -> None:
        """Note that bytes of a sibling's came."""
        self.lenders.add(identity)
        self._fruitless = 0

    def _lose(self, loss: Loss) -> None:
        """Ask a sibling no more; it may be lost over several connections."""
        lender, sibling = loss.lender, loss.lender.sibling
        if self.current is lender:
            self.current = None
            self._fruitless += 1
            self._log.info("a sibling failed", sibling=sibling.label, digest=self._digest, reason=loss.reason)
        if loss.is_to_blame and self._siblings is not None and sibling.identity not in self._excluded:
            self._siblings.failed(sibling.identity)
        self._excluded.add(sibling.identity)
