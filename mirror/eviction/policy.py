"""How much content is missed once it has gone. Pure."""

from __future__ import annotations

import math

_HALF_LIFE_SECONDS = 86400.0
# A request costs something beside its bytes.
_REQUEST_BYTES = 64 * 2**10


def score(size: int, popularity: float, idle: float, cost: float = 1.0) -> float:
    """Return a number that is lower for what is missed less.

    `size` in bytes, `popularity` decayed uses by now (0: unknown, which counts as one use at the last one), `idle` the
    seconds since the last use, `cost` of a byte when it is fetched again.
    """
    uses = max(popularity, math.pow(0.5, idle / _HALF_LIFE_SECONDS))
    return cost * uses * (size + _REQUEST_BYTES) / max(size, 1)
