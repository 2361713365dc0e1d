"""What upstreams are asked once for all replicas."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from mirror.fleet import scripts
from mirror.fleet.keys import topic_key
from mirror.fleet.link import Away
from mirror.fleet.membership import Membership
from mirror.fleet.protocol import Asked, Posted, Turn
from mirror.fleet.waiting import free_if_answered

_TURN_MILLISECONDS = 10_000
# Who waits is woken; this is for words that were lost, and for a replica that had the turn and died.
_LOOK_SECONDS = 0.5
_LONGEST_SECONDS = 86_400.0
_MOST_BYTES = 1 << 20


class Topics:
    """Turns and answers."""

    def __init__(self, membership: Membership) -> None:
        self._fleet = membership
        self._waiting: dict[bytes, set[asyncio.Event]] = {}

    async def consult(self, topic: str, newer_than: float, patience: float) -> Asked:
        """See `Coordinator`."""
        key = topic_key(topic)
        deadline = time.monotonic() + patience
        woken = asyncio.Event()
        self._waiting.setdefault(key, set()).add(woken)
        try:
            said = await self._look(key, newer_than)
            while said[0] not in {b"posted", b"turn"}:
                if time.monotonic() >= deadline:
                    return Turn(topic)
                _, asker, fence = said
                is_there = await self._wait(woken, asker, deadline - time.monotonic())
                woken.clear()
                with free_if_answered():
                    said = await self._look(key, newer_than, b"" if is_there else fence)
            return Posted(said[2], float(said[1])) if said[0] == b"posted" else Turn(topic, int(said[1]))
        except Away:
            return Turn(topic)
        finally:
            self._waiting[key].discard(woken)
            if not self._waiting[key]:
                del self._waiting[key]

    async def _look(self, key: bytes, newer_than: float, suspect: bytes = b"") -> Any:
        fleet, me = self._fleet, self._fleet.me
        return await fleet.ask(
            scripts.CONSULT, key, repr(newer_than), fleet.seat, me.boot, me.identity, _TURN_MILLISECONDS, suspect
        )

    async def post(self, turn: Turn, value: bytes, at: float, seconds: float) -> None:
        """See `Coordinator`."""
        if len(value) > _MOST_BYTES or seconds <= 0:
            await self.leave(turn)
            return
        milliseconds = max(1, int(min(seconds, _LONGEST_SECONDS) * 1000))
        with contextlib.suppress(Away):
            key = topic_key(turn.topic)
            await self._fleet.ask(scripts.POST, key, str(turn.fence), repr(at), milliseconds, value)

    async def leave(self, turn: Turn) -> None:
        """See `Coordinator`."""
        if turn.fence:
            with contextlib.suppress(Away):
                await self._fleet.ask(scripts.POST, topic_key(turn.topic), str(turn.fence))

    def wake(self, key: bytes) -> None:
        """Have those look again who wait for an answer."""
        for each in self._waiting.get(key, ()):
            each.set()

    async def _wait(self, woken: asyncio.Event, asker: bytes, seconds: float) -> bool:
        """Wait to be woken, and not a moment longer than Redis is there.

        Tell whether the replica that has the turn is still there, as far as that is known.
        """
        waits: list[asyncio.Task[Any]] = [asyncio.create_task(each.wait()) for each in (woken, self._fleet.link.lost)]
        try:
            done, _ = await asyncio.wait(
                waits, timeout=min(seconds, _LOOK_SECONDS), return_when=asyncio.FIRST_COMPLETED
            )
            if done or seconds <= _LOOK_SECONDS:
                return True
            finding = asyncio.create_task(self._fleet.finds(asker))
            waits.append(finding)
            await asyncio.wait(waits, timeout=seconds - _LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            return not finding.done() or finding.result()
        finally:
            for each in waits:
                each.cancel()
