"""When a tag's state is believed, and what its age is. No I/O."""

from __future__ import annotations

from mirror.config import FreshnessSettings
from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.oci.errors import Failure
from mirror.store.records import TagState


def seconds_left(state: TagState, settings: FreshnessSettings, now: float) -> float:
    """Return for how many seconds more a state is believed; negative once it expired."""
    return state.checked_at + settings.tag_ttl - now


def status_of(
    state: TagState, settings: FreshnessSettings, now: float, outcome: Outcome, failure: Failure | None = None
) -> CacheStatus:
    """Return how an answer from a tag's state came about."""
    left = min(seconds_left(state, settings, now), 2**31)
    ttl = min(int(left), -1) if outcome is Outcome.STALE else max(int(left), 0)
    return CacheStatus(outcome, ttl=ttl, age=max(0, int(now - state.checked_at)), failure=failure)
