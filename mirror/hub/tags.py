"""Tags: answered as fresh as `[freshness]` asks, and with what is held while the upstream fails."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from mirror.channel import ManifestFound
from mirror.config import FreshnessSettings, Upstream
from mirror.hub.manifests import Held, Manifests
from mirror.hub.resolver import Resolver
from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository, Tag
from mirror.store import Store, TagState
from mirror.store.freshness import Freshness

_MOST_TOLD = 10_000


class Tags:
    """Answers for manifests by tag."""

    def __init__(self, resolver: Resolver, manifests: Manifests, store: Store, settings: FreshnessSettings) -> None:
        """Answer from `store`, and have `resolver` ask for what is not held, or not fresh any more."""
        self._resolver = resolver
        self._manifests = manifests
        self._store = store
        self._freshness = Freshness(settings)
        self._told: dict[tuple[Repository, Tag], float] = {}
        self._log = structlog.get_logger("layover.hub")

    async def close(self) -> None:
        """End every request under way."""
        await self._resolver.close()

    def forget(self, is_meant: Callable[[str], bool]) -> None:
        """Have the upstream asked anew about some repositories: what was purged is not to be answered for any more."""
        self._resolver.forget(is_meant)

    async def find(self, upstream: Upstream, repository: Repository, tag: Tag) -> ManifestFound:
        """Return the manifest that a tag points to.

        Raises:
            RegistryError: the tag is not held, and the upstream has none or failed; or the upstream says it is gone.
        """
        state = self._store.shelf.tag(repository, tag)
        held, joined = None, False
        if state is not None:
            held, joined = await self._manifests.recall(repository, tag, state.digest)
        if state is None or held is None:
            return await self._brought(upstream, repository, tag)
        now = time.time()
        if self._freshness.is_fresh(repository, tag, state, now):
            outcome = held.outcome(joined=joined)
            return held.found(self._freshness.status(repository, tag, state, outcome, now))
        if not self._freshness.may_be_stale(repository, tag, state, now):
            found, joined = await self._resolver.check(upstream, repository, tag)
            return self._checked(repository, tag, found, joined=joined)
        return await self._fresh_or_stale(upstream, repository, tag, state, held)

    async def _fresh_or_stale(
        self, upstream: Upstream, repository: Repository, tag: Tag, state: TagState, held: Held
    ) -> ManifestFound:
        """Ask whether the tag moved, for as long as the answer seems to come; else what is held, marked stale."""
        failure = self._resolver.reason_not_to_check(upstream, repository, tag, state)
        if failure is None:
            try:
                found, joined = await self._resolver.check_soon(upstream, repository, tag)
                return self._checked(repository, tag, found, joined=joined)
            except RegistryError as error:
                if error.failure is None:
                    raise
                failure = error.failure
        return self._stale(repository, tag, state, held, failure)

    async def _brought(self, upstream: Upstream, repository: Repository, tag: Tag) -> ManifestFound:
        """Answer for a tag of which nothing is held; while the upstream fails, with what other replicas know."""
        try:
            found, joined = await self._resolver.bring(upstream, repository, tag)
        except RegistryError as error:
            if error.failure is None or error.code is ErrorCode.DENIED:
                raise
            held = await self._resolver.recall(upstream, repository, tag)
            state = self._store.shelf.tag(repository, tag)
            if held is None or state is None:
                raise
            return self._stale(repository, tag, state, held, error.failure)
        return self._answer(repository, tag, found, found.outcome(joined=joined))

    def _stale(self, repository: Repository, tag: Tag, state: TagState, held: Held, failure: Failure) -> ManifestFound:
        self._tell(repository, tag, state, failure)
        return held.found(self._freshness.status(repository, tag, state, Outcome.STALE, time.time(), failure))

    def _tell(self, repository: Repository, tag: Tag, state: TagState, failure: Failure) -> None:
        """Log, once until it is checked again, that a tag is served stale."""
        if self._told.get((repository, tag)) != state.checked_at and len(self._told) < _MOST_TOLD:
            self._told[repository, tag] = state.checked_at
            self._log.warning("a tag is served stale", image=f"{repository}:{tag}", why=failure)

    def _checked(self, repository: Repository, tag: Tag, held: Held, *, joined: bool) -> ManifestFound:
        outcome = held.outcome(joined=joined) if held.was_fetched else Outcome.REVALIDATED
        return self._answer(repository, tag, held, outcome)

    def _answer(self, repository: Repository, tag: Tag, held: Held, outcome: Outcome) -> ManifestFound:
        self._told.pop((repository, tag), None)
        state = self._store.shelf.tag(repository, tag)
        if state is None:
            # Purged while it was on its way: who asked before has it all the same.
            return held.found(CacheStatus(outcome, is_stored=False))
        return held.found(self._freshness.status(repository, tag, state, outcome, time.time()))
