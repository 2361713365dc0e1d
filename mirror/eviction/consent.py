"""The fleet's consent to an eviction: who else has what, what may go, and whether who keeps it says so too."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple, Protocol

from mirror.eviction.plan import Candidate
from mirror.eviction.policy import score
from mirror.eviction.spares import Spares
from mirror.fleet import Coordinator, Leave, Sibling, Wish
from mirror.oci.digest import Digest
from mirror.store import Holds

# A keeper promises to keep a digest for so long: until then the fleet knows that there is one copy less.
_HOLD_SECONDS = 60.0
_QUESTIONS_AT_ONCE = 8


class Keepers(Protocol):
    """The other replicas, asked one by one."""

    async def has(self, sibling: Sibling, digest: Digest, hold_seconds: float) -> bool:
        """Say whether a replica has a digest, and promises to keep it for so long."""


class Grant(NamedTuple):
    """Content that may go; so many `copies` stay in the fleet, None if that is unknown."""

    candidate: Candidate
    copies: int | None = None
    keeper: str | None = None


class Consent:
    """Asks the fleet before anything goes."""

    def __init__(self, coordinator: Coordinator, keepers: Keepers, min_copies: int) -> None:
        """Ask `coordinator`, and `keepers` whether they have what it says; `min_copies` stay as long as can be.

        `unconfirmed` counts the keepers that did not say so.
        """
        self.min_copies = min_copies
        self._coordinator = coordinator
        self._keepers = keepers
        self._spares = Spares()
        self.unconfirmed = 0

    @property
    def is_up(self) -> bool:
        """Whether the fleet can be asked."""
        return self._coordinator.is_up

    def was_spare(self, digest: Digest) -> bool:
        """Say whether another replica had a digest too when that was last known."""
        return digest in self._spares

    def used(self, counts: Mapping[Digest, int]) -> None:
        """Tell the fleet how often digests were used here."""
        self._coordinator.used(counts)

    async def spares(self, candidates: Sequence[Candidate], least: int) -> list[Candidate]:
        """Return those of which at least `least` other replicas have a copy, scored by how the fleet uses them."""
        digests = [each.digest for each in candidates]
        copies = await self._coordinator.copies(digests)
        if not self.is_up:
            return []
        for digest in digests:
            self._spares.note(digest, is_spare=copies.get(digest, 0) > 0)
        # Of what nothing is known others may have copies: the fleet decides.
        found = [each for each in candidates if copies.get(each.digest, least) >= least]
        return await self._scored(found)

    async def _scored(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        known = await self._coordinator.popularity([each.digest for each in candidates])
        scored = []
        for each in candidates:
            popularity = max(each.popularity, known.get(each.digest, 0.0))
            scored.append(each._replace(popularity=popularity, score=score(each.size, popularity, each.idle)))
        return sorted(scored, key=lambda each: each.score)

    async def grants(self, candidates: Sequence[Candidate], least: int, holds: Holds) -> list[Grant]:
        """Return which may go while `least` copies stay: the fleet counts them as gone, and their keepers confirmed.

        The others stay at once in `holds`, and count as held. Nothing may go if the fleet went away meanwhile.
        """
        leaves = await self._coordinator.release([Wish(each.digest, each.size, least) for each in candidates])
        asked = []
        for each in candidates:
            leave = leaves.get(each.digest)
            if leave is not None and leave.may_go:
                asked.append((each, leave))
            else:
                holds.stay(each.digest)
        lines = asyncio.Semaphore(_QUESTIONS_AT_ONCE)

        async def confirmed(candidate: Candidate, leave: Leave) -> Grant | None:
            async with lines:
                grant = await self._confirmed(candidate, leave, least)
            if grant is None:
                holds.stay(candidate.digest)
                self._keep(candidate)
            return grant

        grants = await asyncio.gather(*(confirmed(each, leave) for each, leave in asked))
        return [grant for grant in grants if grant is not None]

    async def _confirmed(self, candidate: Candidate, leave: Leave, least: int) -> Grant | None:
        if leave.keeper is None:
            return Grant(candidate, 0) if least == 0 and leave.copies == 0 else None
        if await self._keepers.has(leave.keeper, candidate.digest, _HOLD_SECONDS):
            return Grant(candidate, leave.copies, leave.keeper.identity)
        self.unconfirmed += 1
        return None

    def settle(self, grants: Sequence[Grant], freed: Container[Digest]) -> None:
        """Tell the fleet what of all that might go has gone, and that the rest is still there."""
        for grant in grants:
            if grant.candidate.digest in freed:
                self._coordinator.lost(grant.candidate.digest)
            else:
                self._keep(grant.candidate)

    def _keep(self, candidate: Candidate) -> None:
        self._coordinator.holds(candidate.digest, candidate.size)
