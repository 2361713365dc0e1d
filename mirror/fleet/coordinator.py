"""A replica of a fleet that shares a Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

import msgspec
import structlog

from mirror import config
from mirror.config.units import Address
from mirror.fleet import scripts
from mirror.fleet.address import RedisAddress, own_url
from mirror.fleet.copies import Copies
from mirror.fleet.facts import Facts
from mirror.fleet.identity import Identity
from mirror.fleet.inbox import Inbox
from mirror.fleet.leases import Leases
from mirror.fleet.link import Away, Link
from mirror.fleet.membership import Check, Membership
from mirror.fleet.orders import Orders
from mirror.fleet.protocol import Asked, Claim, Fact, Filler, Leave, Message, Order, Sibling, Turn, Wish
from mirror.fleet.topics import Topics
from mirror.fleet.uses import Uses
from mirror.observe.metrics import HubMetrics
from mirror.oci.digest import Digest

_LOOK_SECONDS = 2.0
_START_SECONDS = 0.25


class RedisCoordinator:
    """Implements `Coordinator` through Redis or Valkey; while that is away the replica is alone."""

    def __init__(
        self,
        settings: config.FleetSettings,
        listen: Sequence[Address],
        label: str,
        version: str,
        identity: Identity,
        metrics: HubMetrics,
    ) -> None:
        """Be ready to meet the others; `identity` is loaded before the start.

        Raises:
            ConfigError: a file that the settings name cannot be used.
        """
        self.check: Check | None = None
        self._settings = settings
        self._listen = listen
        self._identity = identity
        self._address = RedisAddress(settings)
        self._link = Link(self._address, self._greet)
        me = Sibling("", label, str(settings.region), "", version)
        self._fleet = Membership(self._link, me, self._own_url, metrics)
        self._copies = Copies(self._fleet)
        self._leases = Leases(self._fleet, self._copies)
        self._topics = Topics(self._fleet)
        self._facts = Facts(self._fleet)
        self._uses = Uses(self._fleet)
        self._orders = Orders(self._fleet)
        self._inbox = Inbox(self._link, lambda: self.identity, self._called)
        self._told: dict[str, list[Callable[[Message], None]]] = {}
        self._ordered: list[Callable[[], None]] = []
        self._forgotten: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._log = structlog.get_logger("layover.fleet")
        self._fleet.on_order = lambda: self._call(self._ordered)
        self._fleet.on_amnesia = self._tell_again

    @property
    def identity(self) -> str:
        """See `Coordinator`; empty before the start."""
        return self._fleet.me.identity

    @property
    def region(self) -> str:
        """See `Coordinator`."""
        return self._fleet.me.region

    @property
    def boot(self) -> str:
        """See `Coordinator`."""
        return self._identity.boot

    @property
    def is_up(self) -> bool:
        """See `Coordinator`."""
        return self._fleet.is_up

    @property
    def state(self) -> str:
        """See `Coordinator`."""
        return self._fleet.state

    @property
    def siblings(self) -> Mapping[str, Sibling]:
        """See `Coordinator`."""
        return self._fleet.siblings

    @property
    def time(self) -> float:
        """See `Coordinator`."""
        return self._fleet.clock()

    async def start(self) -> None:
        """See `Coordinator`. Redis has a moment to answer."""
        self._fleet.start(self._identity, self.check)
        self._link.start()
        for outbox in (self._copies.outbox, self._facts.outbox, self._uses.outbox):
            outbox.start()
        for work in (self._leases.renew_for_ever(), self._inbox.listen_for_ever(), self._look_for_ever()):
            self._tasks.append(asyncio.create_task(work))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                await self._link.met.wait()

    async def close(self) -> None:
        """See `Coordinator`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._leases.give_up()
        for outbox in (self._copies.outbox, self._facts.outbox, self._uses.outbox):
            await outbox.close()
        await self._fleet.close()
        await self._link.close()

    def describe(self, room: int, load: int) -> None:
        """See `Coordinator`."""
        self._fleet.me = msgspec.structs.replace(self._fleet.me, room=_rounded(room), load=_rounded(load))

    def serves(self) -> None:
        """See `Coordinator`."""
        self._fleet.serves()

    def holds(self, digest: Digest, size: int) -> None:  # noqa: ARG002 - the Protocol's
        """See `Coordinator`."""
        self._copies.tell(digest, is_held=True)

    def lost(self, digest: Digest) -> None:
        """See `Coordinator`."""
        self._copies.tell(digest, is_held=False)

    def misses(self, sibling: str, digest: Digest) -> None:
        """See `Coordinator`."""
        self._copies.tell(digest, is_held=False, identity=sibling)

    async def holders(self, digest: Digest) -> Sequence[Sibling]:
        """See `Coordinator`."""
        return await self._copies.holders(digest)

    async def copies(self, digests: Sequence[Digest]) -> Mapping[Digest, int]:
        """See `Coordinator`."""
        return await self._copies.copies(digests)

    async def claim(self, digest: Digest, suspect: Filler | None = None, *, may_lead: bool = True) -> Claim:
        """See `Coordinator`."""
        return await self._leases.claim(digest, suspect, may_lead=may_lead)

    async def yield_up(self, digest: Digest, *, is_held: bool, size: int = 0) -> None:  # noqa: ARG002 - the Protocol's
        """See `Coordinator`."""
        await self._leases.yield_up(digest, is_held=is_held)

    async def consult(self, topic: str, newer_than: float, patience: float) -> Asked:
        """See `Coordinator`."""
        return await self._topics.consult(topic, newer_than, patience)

    async def post(self, turn: Turn, value: bytes, at: float, seconds: float) -> None:
        """See `Coordinator`."""
        await self._topics.post(turn, value, at, seconds)

    async def leave(self, turn: Turn) -> None:
        """See `Coordinator`."""
        await self._topics.leave(turn)

    def share(self, fact: Fact) -> None:
        """See `Coordinator`."""
        self._facts.share(fact)

    def facts(self, kind: str) -> Mapping[str, Fact]:
        """See `Coordinator`."""
        return self._facts.of(kind)

    def on_fact(self, kind: str, told: Callable[[Fact], None]) -> None:
        """See `Coordinator`."""
        self._facts.on(kind, told)

    def used(self, counts: Mapping[Digest, int]) -> None:
        """See `Coordinator`."""
        self._uses.add(counts)

    async def popularity(self, digests: Sequence[Digest]) -> Mapping[Digest, float]:
        """See `Coordinator`."""
        return await self._uses.popularity(digests)

    async def release(self, wishes: Sequence[Wish]) -> Mapping[Digest, Leave]:
        """See `Coordinator`."""
        return await self._copies.release(wishes)

    async def hold(self, digests: Sequence[Digest], seconds: float) -> None:
        """See `Coordinator`."""
        await self._copies.hold(digests, seconds)

    async def send(self, receiver: str, kind: str, body: bytes) -> bool:
        """See `Coordinator`."""
        try:
            word = msgspec.msgpack.encode(Message(self.identity, kind, body))
            return bool(await self._fleet.ask(scripts.SEND, receiver, word))
        except Away:
            return False

    def on_message(self, kind: str, told: Callable[[Message], None]) -> None:
        """See `Coordinator`."""
        self._told.setdefault(kind, []).append(told)

    async def order(self, verb: str, what: str) -> Order | None:
        """See `Coordinator`."""
        return await self._orders.give(verb, what)

    async def orders(self, after: int) -> Sequence[Order] | None:
        """See `Coordinator`."""
        return await self._orders.after(after)

    async def restore(self, orders: Sequence[Order]) -> None:
        """See `Coordinator`."""
        await self._orders.restore(orders)

    def on_order(self, told: Callable[[], None]) -> None:
        """See `Coordinator`."""
        self._ordered.append(told)

    def on_amnesia(self, told: Callable[[], None]) -> None:
        """See `Coordinator`."""
        self._forgotten.append(told)

    async def _greet(self) -> None:
        """Be one of the fleet on a new connection; what the server may have lost is told once more."""
        await self._fleet.greet()
        loop = asyncio.get_running_loop()
        self._leases.renew_soon()
        self._copies.tell_again()
        loop.call_soon(self._call, self._ordered)
        if self._copies.has_forgotten:
            self._copies.has_forgotten = False
            loop.call_soon(self._call, self._forgotten)

    async def _own_url(self) -> str:
        assert self._link.host is not None, "a connection leads to a host"
        return await own_url(str(self._settings.advertise_url), self._listen, self._link.host)

    def _tell_again(self) -> None:
        self._log.warning("the fleet's Redis has lost what it knew: it is told again")
        self._leases.renew_soon()
        self._facts.tell_again()
        self._call(self._forgotten)

    async def _look_for_ever(self) -> None:
        """Follow the file that tells where Redis is."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if await loop.run_in_executor(None, self._address.refresh):
                self._link.lose("is said to be elsewhere")

    def _called(self, word: bytes) -> None:
        """Take what Redis called out: w(oken), m(essage), o(rder), f(act), or b: who is there has changed."""
        kind, rest = word[:1], word[1:]
        if kind == b"w":
            self._topics.wake(rest)
        elif kind == b"o":
            self._call(self._ordered)
        elif kind == b"m":
            with contextlib.suppress(msgspec.DecodeError):
                message = msgspec.msgpack.decode(rest, type=Message)
                for told in self._told.get(message.kind, ()):
                    told(message)
        else:
            self._fleet.hint(is_urgent=kind == b"b")

    @staticmethod
    def _call(told: Sequence[Callable[[], None]]) -> None:
        for each in told:
            each()


def _rounded(number: int) -> int:
    """Return a number with its first two digits, never a greater one: what hardly changes is not told anew."""
    step: int = 10 ** max(0, len(str(number)) - 2)
    return number // step * step
