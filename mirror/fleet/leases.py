"""Who fills what: leases that live as long as their replica beats."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from mirror.fleet import scripts
from mirror.fleet.copies import Copies, chunks
from mirror.fleet.keys import digest_key
from mirror.fleet.link import Away
from mirror.fleet.membership import Membership
from mirror.fleet.protocol import Claim, Filler
from mirror.oci.digest import Digest

# A lease that its replica forgot ends after this, however well that one is.
_KEPT_MILLISECONDS = 60_000
_RENEW_SECONDS = 15.0
_BATCH = 250
_FLEET = "f"


class Leases:
    """The leases of this replica, and how it comes by them."""

    def __init__(self, membership: Membership, copies: Copies) -> None:
        self._fleet = membership
        self._copies = copies
        self._mine: dict[Digest, dict[str, int]] = {}
        self._soon = asyncio.Event()

    async def claim(self, digest: Digest, suspect: Filler | None, *, may_lead: bool) -> Claim:
        """See `Coordinator`."""
        me = self._fleet.me
        seat = self._fleet.seat_of(suspect.identity) if suspect else ""
        fence = str(suspect.fence) if suspect else ""
        asker = (self._fleet.seat, me.boot, me.region)
        try:
            holders, regional, leading = await self._fleet.ask(
                scripts.CLAIM, digest_key(digest), *asker, seat, fence, _KEPT_MILLISECONDS, "1" if may_lead else "0"
            )
        except Away:
            return Claim()
        siblings = await self._copies.siblings_at([*holders, *regional[:1], *leading[:1]])
        found = Claim(
            tuple(each for each in siblings[: len(holders)] if each.identity != me.identity),
            self._filler(regional),
            self._filler(leading),
        )
        given = {f"r{me.region}": found.regional, _FLEET: found.leading}
        mine = {field: filler.fence for field, filler in given.items() if filler and filler.identity == me.identity}
        if mine:
            self._mine[digest] = mine
        else:
            self._mine.pop(digest, None)
        return found

    async def yield_up(self, digest: Digest, *, is_held: bool) -> None:
        """See `Coordinator`."""
        if self._mine.pop(digest, None) is not None or is_held:
            await self._copies.tell_now(digest, is_held=is_held)

    def renew_soon(self) -> None:
        """Tell again which leases this replica has: Redis may have lost them."""
        self._soon.set()

    async def renew_for_ever(self) -> None:
        """Keep the leases that were not given up."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RENEW_SECONDS):
                    await self._soon.wait()
            self._soon.clear()
            rows = [(digest, field, fence) for digest, mine in self._mine.items() for field, fence in mine.items()]
            with contextlib.suppress(Away):
                for some in chunks(rows, _BATCH):
                    await self._renew(some)

    async def give_up(self) -> None:
        """Give up all of them: this replica ends."""
        for digest in tuple(self._mine):
            await self.yield_up(digest, is_held=False)

    async def _renew(self, rows: Sequence[tuple[Digest, str, int]]) -> None:
        parts = [part for digest, field, fence in rows for part in (digest_key(digest), field, str(fence))]
        await self._fleet.ask(scripts.RENEW, self._fleet.seat, self._fleet.me.boot, _KEPT_MILLISECONDS, *parts)

    def _filler(self, told: Sequence[bytes]) -> Filler | None:
        sibling = self._fleet.at(told[0]) if told else None
        return Filler(sibling.identity, int(told[1])) if sibling else None
