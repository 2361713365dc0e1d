"""A fleet within one process, for what needs a clock of its own or one loop: replicas that share plain dictionaries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from mirror.fleet import Alone, Asked, Fact, Posted, Turn


class Commons:
    """What all members share."""

    def __init__(self) -> None:
        self.posted: dict[str, Posted] = {}
        self.seconds: dict[str, float] = {}
        self.turns: dict[str, asyncio.Event] = {}
        self.facts: dict[tuple[str, str], Fact] = {}
        self.members: list[Member] = []
        self.consulted: list[str] = []


class Member(Alone):
    """A replica among others, whose clock is `ahead` of the fleet's."""

    is_up = True

    def __init__(self, commons: Commons, name: str, now: Callable[[], float] = time.time) -> None:
        super().__init__(name, "local")
        self._commons = commons
        self._now = now
        self._told: list[tuple[str, Callable[[Fact], None]]] = []
        commons.members.append(self)

    @property
    def time(self) -> float:
        return self._now()

    async def consult(self, topic: str, newer_than: float, patience: float) -> Asked:
        self._commons.consulted.append(topic)
        while True:
            posted = self._commons.posted.get(topic)
            if posted is not None and posted.at > newer_than:
                return posted
            turn = self._commons.turns.get(topic)
            if turn is None:
                self._commons.turns[topic] = asyncio.Event()
                return Turn(topic, 1)
            try:
                async with asyncio.timeout(patience):
                    await turn.wait()
            except TimeoutError:
                return Turn(topic)

    async def post(self, turn: Turn, value: bytes, at: float, seconds: float) -> None:
        if turn.fence:
            self._commons.posted[turn.topic] = Posted(value, at)
            self._commons.seconds[turn.topic] = seconds
        await self.leave(turn)

    async def leave(self, turn: Turn) -> None:
        if turn.fence:
            self._commons.turns.pop(turn.topic).set()

    def share(self, fact: Fact) -> None:
        self._commons.facts[fact.kind, fact.key] = fact
        for member in self._commons.members:
            for kind, told in member._told if member is not self else ():
                if kind == fact.kind:
                    told(fact)

    def facts(self, kind: str) -> Mapping[str, Fact]:
        return {key: fact for (its, key), fact in self._commons.facts.items() if its == kind and fact.until > self.time}

    def on_fact(self, kind: str, told: Callable[[Fact], None]) -> None:
        self._told.append((kind, told))
