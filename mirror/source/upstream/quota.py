"""How much an upstream still lets the mirror ask for."""

from __future__ import annotations

from enum import IntEnum

from mirror.config import Upstream


class Level(IntEnum):
    """How much of a quota is left: LOW is less than 20 %, CRITICAL less than 5 %."""

    CRITICAL = 0
    LOW = 1
    PLENTY = 2


class Quotas:
    """What upstreams told of their limits."""

    def level(self, upstream: Upstream) -> Level:
        """Return how much is left; PLENTY where nothing is known."""
        return Level.PLENTY

    def remaining(self, upstream: Upstream) -> int | None:
        """Return how many manifests may still be fetched; None if that is unknown."""
        return None

    def limit(self, upstream: Upstream) -> int | None:
        """Return how many manifests may be fetched in a whole window; None if that is unknown."""
        return None

    def heads_are_free(self, upstream: Upstream) -> bool:
        """Say whether a HEAD leaves the quota alone, as far as is known."""
        return True
