"""When a tag's state is believed, and what its age is. No I/O."""

from __future__ import annotations

import functools

from mirror.config import FreshnessSettings
from mirror.config.globs import compile_globs
from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.oci.errors import Failure
from mirror.oci.reference import Repository
from mirror.store.records import TagState

_LONGEST = 2**31
_REMEMBERED = 8192


class Freshness:
    """The times to live of `[freshness]`."""

    def __init__(self, settings: FreshnessSettings) -> None:
        self._default = float(settings.tag_ttl)
        self._stale_if_error = float(settings.stale_if_error)
        self._rules = [(compile_globs([rule.match]), float(rule.ttl)) for rule in settings.rules]
        self.ttl = functools.lru_cache(_REMEMBERED)(self._ttl)

    def _ttl(self, repository: Repository, tag: str) -> float:
        """Return the time to live of a tag in seconds: the first rule's that matches, else the default."""
        image = f"{repository}:{tag}"
        for matches, ttl in self._rules:
            if matches(image):
                return ttl
        return self._default

    def is_fresh(self, repository: Repository, tag: str, state: TagState, now: float, *, stretch: float = 1) -> bool:
        """Say whether a state is believed without asking; `stretch` times as long as it would be else."""
        return now < state.checked_at + self.ttl(repository, tag) * stretch

    def may_be_stale(self, repository: Repository, tag: str, state: TagState, now: float) -> bool:
        """Say whether a state that expired may still stand in for an upstream that fails."""
        return now < state.checked_at + self.ttl(repository, tag) + self._stale_if_error

    def status(
        self,
        repository: Repository,
        tag: str,
        state: TagState,
        outcome: Outcome,
        now: float,
        failure: Failure | None = None,
    ) -> CacheStatus:
        """Return how an answer from a tag's state came about."""
        left = state.checked_at + self.ttl(repository, tag) - now
        left = _LONGEST if left > _LONGEST else -_LONGEST if left < -_LONGEST else int(left)
        ttl = min(left, -1) if outcome is Outcome.STALE else max(left, 0)
        return CacheStatus(outcome, ttl=ttl, age=max(0, int(now - state.checked_at)), failure=failure)
