"""How much of everything is measured."""

from __future__ import annotations

from dataclasses import dataclass

from tests.benchmarks.content import MIB
from tests.benchmarks.servers import NAMES


@dataclass(frozen=True)
class Scale:
    """The full measure; `share` makes images smaller by that factor."""

    servers: tuple[str, ...] = NAMES
    rounds: int = 3
    share: float = 1.0
    load_seconds: int = 4
    clients: int = 50
    readers: int = 200
    readers_seconds: float = 20.0
    streams: int = 1000
    objects: int = 200_000

    def mib(self, size: int) -> int:
        """Return a size given in MiB, at this scale, in bytes; at least 1 MiB."""
        return max(1, int(size * self.share)) * MIB

    def layers(self, *sizes: int) -> list[int]:
        """Return an image's layers, given in MiB, at this scale, in bytes."""
        return [self.mib(size) for size in sizes]


QUICK = Scale(
    rounds=1, share=1 / 8, load_seconds=1, clients=10, readers=40, readers_seconds=5.0, streams=100, objects=2000
)
