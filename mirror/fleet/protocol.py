"""What a replica may ask the fleet, and what it is answered. Two implementations: `Alone`, and through Redis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from mirror.oci.digest import Digest


class Sibling(msgspec.Struct, frozen=True):
    """Another live replica, as its last heartbeat told.

    `identity` is the UUID of its store, `label` what its users call it, `url` where its data port is reached. `room` is
    how many bytes its store may still take, `load` how many answers and fills are under way. `boot` is another text
    each time that it starts.
    """

    identity: str
    label: str
    region: str
    url: str
    version: str
    room: int = 0
    load: int = 0
    boot: str = ""


class Filler(msgspec.Struct, frozen=True):
    """Who has the lease of a digest; `fence` grows with every lease that is given, whoever gets it."""

    identity: str
    fence: int


class Claim(msgspec.Struct, frozen=True):
    """How a digest that this replica lacks stands in the fleet, once it asked for the leases.

    `holders` have it whole. `regional` fills it for this replica's region and `leading` for the fleet, from the
    upstream; either may be this replica, which is given each lease that nobody has; `leading` is None where another
    leads the region, as this replica then has no use for that lease. Both are None where the fleet cannot be asked:
    then everybody is on his own.
    """

    holders: tuple[Sibling, ...] = ()
    regional: Filler | None = None
    leading: Filler | None = None


class Turn(msgspec.Struct, frozen=True):
    """This replica is to ask the upstream about a topic, and to `post` the answer, or to `leave` it to others.

    `fence` is 0 where the fleet cannot be asked.
    """

    topic: str
    fence: int = 0


class Posted(msgspec.Struct, frozen=True):
    """What a replica was answered about a topic; `at` when it began to ask, in fleet time."""

    value: bytes
    at: float


Asked = Turn | Posted


class Fact(msgspec.Struct, frozen=True):
    """Something that all replicas are to know for a while: a quota, a pause, a verdict.

    Of two with one `kind` and `key` the later one (`at`, fleet time) holds, until `until`.
    """

    kind: str
    key: str
    value: bytes
    at: float
    until: float


class Wish(msgspec.Struct, frozen=True):
    """A replica wants to evict a digest of so many bytes and keep at least `least` copies in the fleet.

    `least` 0: even if it is the last copy.
    """

    digest: Digest
    size: int
    least: int


class Leave(msgspec.Struct, frozen=True):
    """What the fleet says to a wish: whether the copy may go, and who keeps one (None: nobody, or the fleet is away).

    `keeper` has to confirm that it has the digest, and holds it for a while, before the file goes. `copies` live ones
    are left beside this replica's, None if that is unknown.
    """

    may_go: bool
    keeper: Sibling | None = None
    copies: int | None = None


class Order(msgspec.Struct, frozen=True):
    """A purge, pin or unpin for every replica, also those that are away: orders are numbered in the order they came.

    `what` is the glob, image or digest as it was typed, `at` fleet time when it was given.
    """

    number: int
    verb: str
    what: str
    at: float


class Message(msgspec.Struct, frozen=True):
    """A word from one replica to another, lost if nobody listens: the offer of a last copy, for one."""

    sender: str
    kind: str
    body: bytes


class Coordinator(Protocol):
    """The fleet as one replica sees it. Used by one event loop, in the hub."""

    @property
    def identity(self) -> str:
        """This replica's UUID."""

    @property
    def region(self) -> str:
        """This replica's region."""

    @property
    def boot(self) -> str:
        """A text that is another each time that the replica starts."""

    @property
    def is_up(self) -> bool:
        """Whether the fleet can be asked: Redis answers, and this replica is a proven member."""

    @property
    def state(self) -> str:
        """One line for people: alone, a member, away since when, or why this replica goes on alone."""

    @property
    def siblings(self) -> Mapping[str, Sibling]:
        """The other live replicas by identity, as known by now; empty while the fleet is away. No I/O."""

    @property
    def time(self) -> float:
        """Fleet time, in seconds since the epoch; steps never, and goes on while Redis is away."""

    async def start(self) -> None:
        """Begin to beat. Redis may be away: it is tried again for ever."""

    async def close(self) -> None:
        """Say goodbye: leases are given up and the others forget this replica at once."""

    def describe(self, room: int, load: int) -> None:
        """Tell with the next heartbeat how this replica does."""

    def serves(self) -> None:
        """Tell that the data port answers: siblings find out now whether they reach it."""

    # Copies

    def holds(self, digest: Digest, size: int) -> None:
        """Tell soon, in batches, that this replica has a digest, whole and verified."""

    def lost(self, digest: Digest) -> None:
        """Tell soon that it has one no more."""

    def misses(self, sibling: str, digest: Digest) -> None:
        """Tell soon that a supposed holder has none."""

    async def holders(self, digest: Digest) -> Sequence[Sibling]:
        """Return the other live replicas that have a digest."""

    async def copies(self, digests: Sequence[Digest]) -> Mapping[Digest, int]:
        """Return how many other live replicas have each; those of which nothing is known are left out."""

    # Leases of fills

    async def claim(self, digest: Digest, suspect: Filler | None = None, *, may_lead: bool = True) -> Claim:
        """Take the leases of a digest that nobody has: of the region first, then of the fleet.

        Without `may_lead` none is taken of a digest that nobody holds or fills.

        A lease is renewed until `yield_up`, and ends a few seconds after its replica did. `suspect` is one that was
        found dead or stalled: if it still has its lease, that is taken from it.
        """

    async def yield_up(self, digest: Digest, *, is_held: bool, size: int = 0) -> None:
        """Give up the leases of a digest; with `is_held` it counts as held by this replica from the same moment on."""

    # Answers of upstreams, asked for once

    async def consult(self, topic: str, newer_than: float, patience: float) -> Asked:
        """Return what was posted about a topic later than `newer_than` (fleet time), or the turn to ask the upstream.

        While another replica has the turn, wait for its answer for at most `patience` seconds (which is waiting for
        that replica's upstream, not for Redis); after that ask without one. A turn ends after some seconds by itself.
        """

    async def post(self, turn: Turn, value: bytes, at: float, seconds: float) -> None:
        """Give the answer that was asked for at `at` to all who consult within so many seconds, and end the turn."""

    async def leave(self, turn: Turn) -> None:
        """End the turn without an answer: the next who asks has it."""

    # What all are to know

    def share(self, fact: Fact) -> None:
        """Tell all replicas soon, those that start later as well."""

    def facts(self, kind: str) -> Mapping[str, Fact]:
        """Return the facts of a kind by key that still hold, this replica's own among them. No I/O."""

    def on_fact(self, kind: str, told: Callable[[Fact], None]) -> None:
        """Have a function called for each fact of a kind that another replica shared."""

    # Popularity, eviction

    def used(self, counts: Mapping[Digest, int]) -> None:
        """Tell soon, in batches, how often digests were used here since the last time."""

    async def popularity(self, digests: Sequence[Digest]) -> Mapping[Digest, float]:
        """Return how often digests are used in the whole fleet, decayed; what is unknown is left out."""

    async def release(self, wishes: Sequence[Wish]) -> Mapping[Digest, Leave]:
        """Decide atomically which copies may go: those count as gone at once. Who keeps one is named with each.

        While the fleet is away every wish is granted, with `copies` None: what to do then is the plan's.
        """

    async def hold(self, digests: Sequence[Digest], seconds: float) -> None:
        """Have nobody release this replica's copies for so long: it promised to keep them."""

    async def send(self, receiver: str, kind: str, body: bytes) -> bool:
        """Send a word to a replica; False if it cannot be said."""

    def on_message(self, kind: str, told: Callable[[Message], None]) -> None:
        """Have a function called for each word of a kind that others sent."""

    # Orders

    async def order(self, verb: str, what: str) -> Order | None:
        """Give an order to every replica, this one included; None if the fleet cannot be asked: carry it out alone."""

    async def orders(self, after: int) -> Sequence[Order] | None:
        """Return the orders with higher numbers, oldest first; None if the fleet cannot be asked.

        That, `order` and `restore` work as soon as Redis answers, also before this replica is a proven member.
        """

    async def restore(self, orders: Sequence[Order]) -> None:
        """Give orders back, under their numbers, to a Redis that has lost them."""

    def on_order(self, told: Callable[[], None]) -> None:
        """Have a function called when there are new orders, when Redis came back, and when it came back empty."""

    def on_amnesia(self, told: Callable[[], None]) -> None:
        """Have a function called when Redis came back empty: holders are to be told again."""
