"""How an answer came about: the request's outcome for metrics, and the Cache-Status header (RFC 9211)."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from mirror.oci.errors import Failure


class Outcome(StrEnum):
    """The closed set behind the `outcome` label."""

    HIT = "hit"
    REVALIDATED = "revalidated"
    JOINED = "joined"
    MISS = "miss"
    STALE = "stale"
    NEGATIVE = "negative"
    DENIED = "denied"
    ERROR = "error"


class CacheStatus(msgspec.Struct, frozen=True):
    """What the door reports of an answer.

    `ttl` and `age` in seconds, None where nothing expires; `failure` is why a stale answer was given.
    """

    outcome: Outcome
    ttl: int | None = None
    age: int | None = None
    failure: Failure | None = None
    is_stored: bool = True

    def header(self) -> str:
        """Return the value of Cache-Status."""
        if self.outcome is Outcome.STALE:
            return f"layover; hit; ttl={self.ttl or 0}; detail=stale-{self.failure or Failure.TIMEOUT}"
        if self.outcome in {Outcome.HIT, Outcome.REVALIDATED}:
            return "layover; hit" if self.ttl is None else f"layover; hit; ttl={self.ttl}"
        if not self.is_stored:
            return "layover; fwd=miss; detail=unstored"
        return "layover; fwd=miss; collapsed" if self.outcome is Outcome.JOINED else "layover; fwd=miss; stored"
