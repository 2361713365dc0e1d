"""What all replicas are to know for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from mirror.fleet import scripts
from mirror.fleet.copies import chunks
from mirror.fleet.membership import Membership
from mirror.fleet.outbox import Outbox
from mirror.fleet.protocol import Fact

_SOON_SECONDS = 0.02
_BATCH = 100
_LONGEST_SECONDS = 30 * 86_400.0
_MOST = 50_000


class Facts:
    """The facts that hold, as far as this replica knows."""

    def __init__(self, membership: Membership) -> None:
        self.outbox = Outbox(self._flush, _SOON_SECONDS)
        self._fleet = membership
        self._known: dict[str, dict[str, Fact]] = {}
        self._own: dict[tuple[str, str], Fact] = {}
        self._pending: dict[tuple[str, str], Fact] = {}
        self._told: dict[str, list[Callable[[Fact], None]]] = {}
        membership.on_facts = self._hear

    def share(self, fact: Fact) -> None:
        """See `Coordinator`."""
        if self._take(fact):
            self._own[fact.kind, fact.key] = self._pending[fact.kind, fact.key] = fact
            for table in (self._own, self._pending):
                if len(table) > _MOST:
                    table.pop(next(iter(table)))
            self.outbox.ring()

    def of(self, kind: str) -> Mapping[str, Fact]:
        """Return those of a kind that hold."""
        now = self._fleet.clock()
        known = self._known.get(kind, {})
        for key in [key for key, fact in known.items() if fact.until <= now]:
            del known[key]
        return known

    def on(self, kind: str, told: Callable[[Fact], None]) -> None:
        """See `Coordinator.on_fact`."""
        self._told.setdefault(kind, []).append(told)

    def tell_again(self) -> None:
        """Share what this replica shared once more: Redis lost it."""
        now = self._fleet.clock()
        self._own = {key: fact for key, fact in self._own.items() if fact.until > now}
        self._pending = {**self._own, **self._pending}
        self.outbox.ring()

    def _take(self, fact: Fact) -> bool:
        known = self._known.setdefault(fact.kind, {})
        held = known.get(fact.key)
        if fact.until <= self._fleet.clock() or (held is not None and held.at >= fact.at):
            return False
        known[fact.key] = fact
        if len(known) > _MOST:
            del known[next(iter(known))]
        return True

    def _hear(self, rows: list[tuple[bytes, bytes]]) -> None:
        for field, value in rows:
            kind, _, key = field.decode(errors="replace").partition("\0")
            at, until, content = value.split(b" ", 2)
            fact = Fact(kind, key, content, float(at), float(until))
            if self._take(fact):
                for told in self._told.get(kind, ()):
                    asyncio.get_running_loop().call_soon(told, fact)

    async def _flush(self) -> None:
        while self._pending:
            some = next(iter(chunks(tuple(self._pending.values()), _BATCH)))
            latest = self._fleet.clock() + _LONGEST_SECONDS
            parts: list[str | bytes] = []
            for fact in some:
                parts += (f"{fact.kind}\0{fact.key}", repr(fact.at), repr(min(fact.until, latest)), fact.value)
            await self._fleet.ask(scripts.SHARE, *parts)
            for fact in some:
                if self._pending.get((fact.kind, fact.key)) is fact:
                    del self._pending[fact.kind, fact.key]
