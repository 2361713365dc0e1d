"""A replica without a fleet."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from mirror.fleet.protocol import Asked, Claim, Fact, Filler, Leave, Message, Order, Sibling, Turn, Wish
from mirror.oci.digest import Digest


class Alone:
    """Implements `Coordinator` with nobody else there."""

    is_up = False
    state = "alone"
    boot = ""

    def __init__(self, identity: str, region: str) -> None:
        self.identity = identity
        self.region = region
        self.siblings: Mapping[str, Sibling] = {}

    @property
    def time(self) -> float:
        """The replica's own clock."""
        return time.time()

    async def start(self) -> None:
        """There is nothing to begin."""

    async def close(self) -> None:
        """There is nobody to say it to."""

    def describe(self, room: int, load: int) -> None:
        """See `Coordinator`."""

    def serves(self) -> None:
        """See `Coordinator`."""

    def holds(self, digest: Digest, size: int) -> None:
        """See `Coordinator`."""

    def lost(self, digest: Digest) -> None:
        """See `Coordinator`."""

    def misses(self, sibling: str, digest: Digest) -> None:
        """See `Coordinator`."""

    async def holders(self, digest: Digest) -> Sequence[Sibling]:  # noqa: ARG002 - the Protocol's
        """See `Coordinator`."""
        return ()

    async def copies(self, digests: Sequence[Digest]) -> Mapping[Digest, int]:  # noqa: ARG002 - the Protocol's
        """See `Coordinator`."""
        return {}

    async def claim(
        self,
        digest: Digest,  # noqa: ARG002 - the Protocol's
        suspect: Filler | None = None,  # noqa: ARG002 - the Protocol's
        *,
        may_lead: bool = True,  # noqa: ARG002 - the Protocol's
    ) -> Claim:
        """See `Coordinator`."""
        return Claim()

    async def yield_up(self, digest: Digest, *, is_held: bool, size: int = 0) -> None:
        """See `Coordinator`."""

    async def consult(self, topic: str, newer_than: float, patience: float) -> Asked:  # noqa: ARG002 - the Protocol's
        """See `Coordinator`."""
        return Turn(topic)

    async def post(self, turn: Turn, value: bytes, at: float, seconds: float) -> None:
        """See `Coordinator`."""

    async def leave(self, turn: Turn) -> None:
        """See `Coordinator`."""

    def share(self, fact: Fact) -> None:
        """See `Coordinator`."""

    def facts(self, kind: str) -> Mapping[str, Fact]:  # noqa: ARG002 - the Protocol's
        """See `Coordinator`."""
        return {}

    def on_fact(self, kind: str, told: Callable[[Fact], None]) -> None:
        """See `Coordinator`."""

    def used(self, counts: Mapping[Digest, int]) -> None:
        """See `Coordinator`."""

    async def popularity(self, digests: Sequence[Digest]) -> Mapping[Digest, float]:  # noqa: ARG002 - the Protocol's
        """See `Coordinator`."""
        return {}

    async def release(self, wishes: Sequence[Wish]) -> Mapping[Digest, Leave]:
        """See `Coordinator`."""
        return {wish.digest: Leave(may_go=True) for wish in wishes}

    async def hold(self, digests: Sequence[Digest], seconds: float) -> None:
        """See `Coordinator`."""

    async def send(self, receiver: str, kind: str, body: bytes) -> bool:  # noqa: ARG002 - the Protocol's
        """See `Coordinator`."""
        return False

    def on_message(self, kind: str, told: Callable[[Message], None]) -> None:
        """See `Coordinator`."""

    async def order(self, verb: str, what: str) -> Order | None:  # noqa: ARG002 - the Protocol's
        """See `Coordinator`."""
        return None

    async def orders(self, after: int) -> Sequence[Order] | None:  # noqa: ARG002 - the Protocol's
        """See `Coordinator`."""
        return ()

    async def restore(self, orders: Sequence[Order]) -> None:
        """See `Coordinator`."""

    def on_order(self, told: Callable[[], None]) -> None:
        """See `Coordinator`."""

    def on_amnesia(self, told: Callable[[], None]) -> None:
        """See `Coordinator`."""
