"""What replicas that ask an upstream as the same caller tell one another of its limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from mirror.fleet import Alone, Coordinator, Fact
from mirror.source.upstream.scopes import Scopes

_QUOTA, _PAUSE = "quota", "pause"


class Reading(NamedTuple):
    """What is left of a limit, when that was learnt, and until when it holds, on the monotonic clock."""

    limit: int
    remaining: int
    learnt_at: float
    until: float


class Pause(NamedTuple):
    """Until when, on the monotonic clock, requests of a kind and method are not made."""

    kind: str
    method: str
    until: float


News = Reading | Pause


class QuotaNews:
    """Readings and pauses by scope: the fingerprint of an upstream's address and of the caller."""

    def __init__(self, coordinator: Coordinator, scopes: Scopes) -> None:
        self._coordinator = coordinator
        self._scopes = scopes

    @classmethod
    def none(cls) -> QuotaNews:
        """Return those of a replica without a fleet."""
        return cls(Alone("", ""), Scopes(str))

    def scope(self, url: str, identity: str) -> str:
        """Return under which name others know a caller at a URL."""
        return self._scopes.of(identity, url)

    def tell(self, scope: str, news: News) -> None:
        """Let the others know, if there are any: before the fleet was met nobody knows its time."""
        if not self._coordinator.is_up:
            return
        ahead = self._ahead
        if isinstance(news, Reading):
            value = msgspec.msgpack.encode((news.limit, news.remaining))
            fact = Fact(_QUOTA, scope, value, news.learnt_at + ahead, news.until + ahead)
        else:
            key = f"{scope}:{news.kind}:{news.method}"
            fact = Fact(_PAUSE, key, b"", self._coordinator.time, news.until + ahead)
        self._coordinator.share(fact)

    def on_news(self, told: Callable[[str, News], None]) -> None:
        """Have a function called with what another replica tells, and its scope."""

        def take(fact: Fact) -> None:
            for scope, news in self._read(fact):
                told(scope, news)

        self._coordinator.on_fact(_QUOTA, take)
        self._coordinator.on_fact(_PAUSE, take)

    def known(self, scope: str) -> list[News]:
        """Return what was told of a scope and still holds."""
        facts = [*self._coordinator.facts(_QUOTA).values(), *self._coordinator.facts(_PAUSE).values()]
        told = [each for fact in facts if fact.key.startswith(scope) for each in self._read(fact)]
        return [news for _, news in told]

    @property
    def _ahead(self) -> float:
        """How far fleet time is ahead of the monotonic clock."""
        return self._coordinator.time - time.monotonic()

    def _read(self, fact: Fact) -> Iterator[tuple[str, News]]:
        """Yield what a fact says, nothing if another release may understand it."""
        until = fact.until - self._ahead
        if fact.kind == _PAUSE:
            scope, _, rest = fact.key.partition(":")
            kind, _, method = rest.partition(":")
            yield scope, Pause(kind, method, until)
            return
        try:
            limit, remaining = msgspec.msgpack.decode(fact.value, type=tuple[int, int])
        except msgspec.MsgspecError:
            return
        if limit > 0 and remaining >= 0:
            # What was learnt elsewhere was not learnt later than now, whatever the clocks say.
            yield fact.key, Reading(limit, remaining, min(fact.at - self._ahead, time.monotonic()), until)
