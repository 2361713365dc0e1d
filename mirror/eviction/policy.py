"""How much content is missed once it has gone. Pure."""

from __future__ import annotations

from mirror.eviction.popularity import once

# What it costs to fetch something again beside its bytes, in bytes: a request.
_REQUEST_BYTES = 64 * 2**10


def score(size: int, popularity: float, idle: float) -> float:
    """Return a number that is lower for what is missed less: what fetching it again costs, by use and byte.

    `size` in bytes, `popularity` by now (0: unknown, which counts as a first use at the last one), `idle` the seconds
    since the last use.
    """
    return (popularity or once(idle)) * (size + _REQUEST_BYTES) / max(size, 1)
