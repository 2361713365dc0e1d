"""Being one of the fleet: heartbeats, who else is there, and whether they reach this replica."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import structlog

from mirror.fleet import scripts
from mirror.fleet.clock import FleetClock
from mirror.fleet.identity import Identity
from mirror.fleet.link import Away, Link
from mirror.fleet.protocol import Sibling
from mirror.fleet.scripts import Script
from mirror.fleet.waiting import allowance, seconds_left, spending
from mirror.observe.metrics import HubMetrics

Check = Callable[[Sibling], Awaitable[bool]]
_BEAT_SECONDS = 1.0
# Hints that something changed make it beat sooner, but not more often than this.
_SHORTEST_SECONDS = 0.2
_URGENT_SECONDS = 0.03
_PAGE = 200
# So often has a sibling to have called in vain before a URL is called wrong: the port may be just about to open.
_REFUTED = 3
_PENDING_SECONDS = 5.0
_NOBODY: Mapping[str, Sibling] = MappingProxyType({})


class Membership:
    """What the last heartbeat told, and the next one."""

    def __init__(self, link: Link, me: Sibling, url: Callable[[], Awaitable[str]], metrics: HubMetrics) -> None:
        """Beat over `link` as `me`, whose identity is known at the start and whose URL at each connection."""
        self.link = link
        self.clock = FleetClock()
        self.seat = ""
        self.generation = ""
        self.on_facts: Callable[[list[tuple[bytes, bytes]]], None] = lambda _: None
        self.on_order: Callable[[], None] = lambda: None
        self.on_amnesia: Callable[[], None] = lambda: None
        self.me = me
        self._find_url = url
        self._check: Check | None = None
        self._metrics = metrics
        self._log = structlog.get_logger("layover.fleet")
        self._members: dict[str, Sibling] = {}
        self._live: dict[str, Sibling] = {}
        self._siblings: Mapping[str, Sibling] = _NOBODY
        self._members_seen = self._facts_seen = "0"
        self._last_order = b""
        self._former = ""
        self._serves = False
        self._is_taken = self._is_proven = self._is_refuted = False
        self._accepted = asyncio.Event()
        self._pending_until = 0.0
        self._hint = asyncio.Event()
        self._began = self._due = 0.0
        self._beating = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._told = ""
        self._regions: set[str] = set()

    @property
    def is_up(self) -> bool:
        """Whether the fleet can be asked."""
        return self.link.is_up and self._accepted.is_set()

    @property
    def siblings(self) -> Mapping[str, Sibling]:
        """The others by identity; nobody while the fleet cannot be asked."""
        return self._siblings if self.is_up else _NOBODY

    @property
    def state(self) -> str:
        """See `Coordinator`."""
        if not self.link.is_up:
            since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.link.since))
            return f"alone since {since}: Redis {self.link.reason}"
        if self._is_taken:
            return (
                f"alone: another live replica has the identity {self.me.identity}; "
                f"its store is a copy of the other's: remove the file identity from one of them"
            )
        if self._accepted.is_set():
            return f"a member of {len(self._live) + 1} replicas" if self._live else "the only replica of the fleet"
        if self._is_refuted:
            return (
                f"alone: siblings that call {self.me.url} do not find this replica there; set fleet.advertise_url to "
                f"where they reach its data port, and the same fleet.secret on all"
            )
        return f"waiting for a sibling to reach this replica at {self.me.url}"

    def start(self, identity: Identity, check: Check | None) -> None:
        """Begin to beat. `check` tells whether a sibling is found where it says; without one all are believed."""
        self.me = msgspec.structs.replace(self.me, identity=identity.uuid, boot=identity.boot)
        self._former = identity.former
        self._check = check
        self._spawn(self._beat_for_ever())

    async def close(self) -> None:
        """Beat no more, and let the others know at once."""
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self.link.is_up and self.seat and not self._is_taken:
            with contextlib.suppress(Away):
                await self.link.run(scripts.GOODBYE, self.seat, self.me.boot)
        self._show(is_up=False)

    def serves(self) -> None:
        """See `Coordinator`."""
        self._serves = True
        self.hint()

    def hint(self, *, is_urgent: bool = True) -> None:
        """Beat soon, though not often."""
        self._due = min(self._due, self._began + (_URGENT_SECONDS if is_urgent else _SHORTEST_SECONDS))
        self._hint.set()

    async def ask(self, script: Script, *arguments: str | bytes | float) -> Any:
        """Return what a script answers.

        Raises:
            Away: it does not, or this replica is no member.
        """
        await self._acceptance()
        if not self.is_up:
            raise Away(self.state)
        return await self.ask_anyway(script, *arguments)

    async def ask_anyway(self, script: Script, *arguments: str | bytes | float) -> Any:
        """Do as `ask`, also while this replica is no member that siblings have reached.

        Raises:
            Away: Redis does not answer.
        """
        if not self.link.is_up:
            raise Away(self.link.reason)
        with self._metrics.fleet_seconds.labels(script.name).time():
            return await self.link.run(script, *arguments)

    def at(self, seat: bytes) -> Sibling | None:
        """Return the live replica that has a seat, this one too."""
        name = seat.decode()
        return self.me if name == self.seat else self._live.get(name)

    async def finds(self, seat: bytes) -> bool:
        """Say whether the replica that has a seat is found where it says, if that can be checked."""
        sibling = self._live.get(seat.decode())
        return sibling is None or self._check is None or await self._check(sibling)

    def seat_of(self, identity: str) -> str:
        """Return the seat of a replica, `""` if it is not known."""
        if identity == self.me.identity:
            return self.seat
        return next((seat for seat, each in self._members.items() if each.identity == identity), "")

    def keepers(self) -> str:
        """Return the seats of the others: first those in the region, of these first those with the most room."""
        near = sorted(self._live.items(), key=lambda item: (item[1].region != self.me.region, -item[1].room))
        return " ".join(seat for seat, _ in near)

    async def refresh(self) -> None:
        """Hear who is there now."""
        with contextlib.suppress(Away, TimeoutError), spending():
            async with asyncio.timeout(seconds_left()):
                await self._beat()

    async def greet(self) -> None:
        """Beat for the first time on a connection: nothing that was heard before counts.

        Raises:
            Away: Redis does not take it.
        """
        self._members_seen = self._facts_seen = "0"
        self.me = msgspec.structs.replace(self.me, url=str(await self._find_url()))
        await self._beat()

    async def _acceptance(self) -> None:
        """Let a replica that has just come be reached by a sibling."""
        if self._accepted.is_set() or not self.link.is_up or time.monotonic() > self._pending_until:
            return
        with contextlib.suppress(TimeoutError), spending():
            async with asyncio.timeout(seconds_left()):
                await self._accepted.wait()

    async def _beat_for_ever(self) -> None:
        while True:
            while (left := self._due - time.monotonic()) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._hint.wait()
                self._hint.clear()
            self._began = time.monotonic()
            self._due = self._began + _BEAT_SECONDS
            if self.link.is_up:
                await self.refresh()
            self._say()

    async def _beat(self) -> None:
        async with self._beating:
            with allowance():
                is_whole = False
                while not is_whole:
                    is_whole = await self._beat_once()

    async def _beat_once(self) -> bool:
        """Tell how this replica does, and hear of the others; whether all news were heard."""
        me = self.me
        told = msgspec.json.encode(me)
        flags = (
            "1" if self._is_proven or self._check is None else "0",
            "1" if self._check else "0",
            "1" if self._serves else "0",
        )
        began = time.monotonic()
        with self._metrics.fleet_seconds.labels("beat").time():
            answer = await self.link.run(
                scripts.BEAT, me.identity, me.boot, self._former, me.region, me.url, told, uuid.uuid4().hex,
                self._members_seen, self._facts_seen, *flags,
            )  # fmt: skip
        self.clock.sample(began, int(answer[1]) + int(answer[2]) / 1e6, time.monotonic())
        self._is_taken = answer[0] == b"taken"
        if self._is_taken:
            self._accepted.clear()
            self._live, self._siblings = {}, _NOBODY
            return True
        self._former = ""
        return self._hear(answer[3:])

    def _hear(self, answer: list[Any]) -> bool:
        seat, generation, is_proven, refuted, live, to_check, members, facts, last_order = answer
        is_amnesia = self._is_news(seat.decode(), generation.decode())
        for name, number, told in members:
            self._members_seen = number.decode()
            with contextlib.suppress(msgspec.DecodeError):
                self._members[name.decode()] = msgspec.json.decode(told or b"", type=Sibling)
        self._meet([each.decode() for each in live])
        self._judge(is_proven=bool(is_proven), refuted=refuted, to_check=to_check.decode())
        if facts:
            self._facts_seen = facts[-1][1].decode()
            self.on_facts([(field, value) for field, _, value in facts if value])
        loop = asyncio.get_running_loop()
        if is_amnesia:
            self._members_seen = self._facts_seen = "0"
            loop.call_soon(self.on_amnesia)
        if last_order != self._last_order or is_amnesia:
            self._last_order = last_order
            loop.call_soon(self.on_order)
        return max(len(members), len(facts)) < _PAGE and not is_amnesia

    def _is_news(self, seat: str, generation: str) -> bool:
        """Tell whether what this replica told Redis before is lost there."""
        is_amnesia = bool(self.seat) and (self.generation, self.seat) != (generation, seat)
        if self.generation != generation:
            self._members.clear()
        self.generation, self.seat = generation, seat
        return is_amnesia

    def _meet(self, seats: list[str]) -> None:
        live = {seat: self._members[seat] for seat in seats if seat != self.seat and seat in self._members}
        self._live = live
        self._siblings = MappingProxyType({each.identity: each for each in live.values()})

    def _judge(self, *, is_proven: bool, refuted: int, to_check: str) -> None:
        """Find out whether siblings reach this replica, and do them the same service."""
        if not self._accepted.is_set() and not self._pending_until:
            self._pending_until = time.monotonic() + _PENDING_SECONDS
        self._is_proven = self._is_proven or is_proven
        self._is_refuted = not self._is_proven and refuted >= _REFUTED
        if self._is_proven or not self._live:
            self._accepted.set()
        elif self._is_refuted:
            self._accepted.clear()
        if to_check in self._live:
            self._spawn(self._vouch(to_check, self._live[to_check]))

    async def _vouch(self, seat: str, sibling: Sibling) -> None:
        assert self._check is not None, "only who can check is asked to"
        is_right = await self._check(sibling)
        with contextlib.suppress(Away):
            await self.ask_anyway(scripts.VOUCH, seat, sibling.identity, sibling.url, "1" if is_right else "0")

    def _say(self) -> None:
        """Say once what people have to know, and show the rest."""
        self._show(is_up=self.is_up)
        if not self.link.is_up or self.state == self._told:
            return
        was_told, self._told = self._told, self.state
        if self._is_taken or self._is_refuted:
            self._log.error("this replica is not one of the fleet", reason=self.state)
        elif self._accepted.is_set() and not was_told.startswith("a member"):
            self._log.info("this replica is one of the fleet", region=self.me.region, url=self.me.url)

    def _show(self, *, is_up: bool) -> None:
        self._metrics.fleet_up.set(is_up)
        replicas = (self.me, *self._live.values()) if is_up else ()
        self._regions.update(each.region for each in replicas)
        for region in self._regions:
            self._metrics.fleet_replicas.labels(region).set(sum(each.region == region for each in replicas))

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
