"""How much content is missed once it has gone. Pure."""

from __future__ import annotations

from mirror.eviction.popularity import once

# A request costs something beside its bytes.
_REQUEST_BYTES = 64 * 2**10


def score(size: int, popularity: float, idle: float, cost: float = 1.0) -> float:
    """Return a number that is lower for what is missed less, by byte of room.

    `size` in bytes, `popularity` by now (0: unknown, which counts as a first use at the last one), `idle` the seconds
    since the last use, `cost` of a byte when it is fetched again.
    """
    return cost * (popularity or once(idle)) * (size + _REQUEST_BYTES) / max(size, 1)
