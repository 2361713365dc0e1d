"""Orders to every replica, numbered."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import msgspec

from mirror.fleet import scripts
from mirror.fleet.copies import chunks
from mirror.fleet.link import Away
from mirror.fleet.membership import Membership
from mirror.fleet.protocol import Order

_PAGE = 500
_BATCH = 100


class Orders:
    """What was ordered within 30 days; also for a replica that no sibling has reached."""

    def __init__(self, membership: Membership) -> None:
        self._fleet = membership

    async def give(self, verb: str, what: str) -> Order | None:
        """See `Coordinator.order`."""
        at = self._fleet.clock()
        try:
            number = await self._fleet.ask_anyway(scripts.ORDER, _spell(verb, what, at))
        except Away:
            return None
        return Order(int(number), verb, what, at)

    async def after(self, number: int) -> Sequence[Order] | None:
        """See `Coordinator.orders`."""
        found: list[Order] = []
        rows: list[bytes] = []
        while not found or len(rows) == _PAGE:
            try:
                rows = await self._fleet.ask_anyway(scripts.ORDERS, str(found[-1].number if found else number))
            except Away:
                return None
            if not rows:
                break
            found += map(_read, rows)
        return found

    async def restore(self, orders: Sequence[Order]) -> None:
        """See `Coordinator`."""
        with contextlib.suppress(Away):
            for some in chunks(orders, _BATCH):
                parts = [part for each in some for part in (str(each.number), _spell(each.verb, each.what, each.at))]
                await self._fleet.ask_anyway(scripts.RESTORE, *parts)


def _spell(verb: str, what: str, at: float) -> str:
    return msgspec.json.encode((verb, what, at)).decode()


def _read(row: bytes) -> Order:
    number, _, rest = row.partition(b" ")
    verb, what, at = msgspec.json.decode(rest, type=tuple[str, str, float])
    return Order(int(number), verb, what, at)
