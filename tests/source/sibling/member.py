"""A member of a fleet that knows its time, and what it was told to remember."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mirror.fleet import Alone, Sibling
from mirror.oci.digest import Digest

SECRET = "a secret of the fleet"
# Fleet time is not this machine's.
CLOCK = 5_000_000.0


class Member(Alone):
    """A coordinator whose fleet is away, but for its time."""

    def __init__(self, identity: str, region: str = "here") -> None:
        super().__init__(identity, region)
        self.late = 0.0
        self.missed: list[tuple[str, Digest]] = []
        self.held: list[tuple[Digest, float]] = []

    @property
    def time(self) -> float:
        """Fleet time, and `late` seconds."""
        return time.monotonic() + CLOCK + self.late

    def misses(self, sibling: str, digest: Digest) -> None:
        """Remember who does not have what."""
        self.missed.append((sibling, digest))

    async def hold(self, digests: Sequence[Digest], seconds: float) -> None:
        """Remember what was promised."""
        self.held += [(digest, seconds) for digest in digests]


def sibling_at(url: str, identity: str, region: str = "here", *, boot: str = "", load: int = 0) -> Sibling:
    """Return a sibling that is reached at `url`."""
    return Sibling(identity, identity, region, url, "1", load=load, boot=boot)
