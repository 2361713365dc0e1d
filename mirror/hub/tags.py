"""Tags: as fresh as `[freshness]` asks, at one HEAD for all who wait, and what is held while the upstream fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from mirror.channel import ManifestFound
from mirror.config import FreshnessSettings, Upstream
from mirror.hub.deferrals import Deferrals
from mirror.hub.lookout import Lookout
from mirror.hub.manifests import Held, Manifests
from mirror.hub.negatives import Negatives
from mirror.hub.patience import Patience
from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.manifest import platforms
from mirror.oci.reference import Repository, Tag
from mirror.source.upstream import FetchedManifest, Level, Quotas, UpstreamManifests
from mirror.store import Store, TagState
from mirror.store.freshness import Freshness

# Of a quota that runs short, times to live are this much longer.
_STRETCH = 2.0
_MOST_TOLD = 10_000
_RESERVE = 0.05


class Tags:
    """Answers for manifests by tag. Of those who ask the same at once, one asks the upstream."""

    def __init__(
        self,
        source: UpstreamManifests,
        manifests: Manifests,
        store: Store,
        settings: FreshnessSettings,
        quotas: Quotas,
        identity: Callable[[Upstream], Awaitable[str]],
    ) -> None:
        """Ask `source`; `identity` tells as whom, as a text that changes with the credentials."""
        self._source = source
        self._manifests = manifests
        self._store = store
        self._settings = settings
        self._freshness = Freshness(settings)
        self._quotas = quotas
        self._identity = identity
        self._negatives = Negatives(settings.negative_ttl)
        self._deferrals = Deferrals()
        self._lookout: Lookout[Tag, Held] = Lookout(self._check, identity, settings.revalidate_timeout)
        self._adopting: dict[str, asyncio.Lock] = {}
        self._told: set[tuple[Repository, Tag]] = set()
        self._log = structlog.get_logger("layover.hub")

    async def close(self) -> None:
        """End every request under way."""
        await self._lookout.close()

    def forget(self, is_meant: Callable[[str], bool]) -> None:
        """Have the upstream asked anew about some repositories: what was purged is not to be answered for any more."""
        self._negatives.forget(is_meant)
        self._deferrals.forget(is_meant)
        self._lookout.leave(is_meant)

    async def find(self, upstream: Upstream, repository: Repository, tag: Tag) -> ManifestFound:
        """Return the manifest that a tag points to.

        Raises:
            RegistryError: the tag is not held, and the upstream has none or failed; or the upstream says it is gone.
        """
        state = self._store.shelf.tag(repository, tag)
        held = None if state is None else self._manifests.held(repository, state.digest)
        if state is None or held is None:
            return await self._missing(upstream, repository, tag)
        now = time.time()
        if self._freshness.is_fresh(repository, tag, state, now):
            return held.found(self._freshness.status(repository, tag, state, Outcome.HIT, now))
        if not self._freshness.may_be_stale(repository, tag, state, now):
            found, joined = await self._lookout.wait(upstream, repository, tag)
            return self._checked(repository, tag, found, joined=joined)
        return await self._fresh_or_stale(upstream, repository, tag, state, held)

    async def _missing(self, upstream: Upstream, repository: Repository, tag: Tag) -> ManifestFound:
        identity = await self._identity(upstream)
        self._negatives.check(repository, tag, identity)
        flight, joined = self._lookout.bring(repository, tag, lambda: self._get(upstream, repository, tag))
        try:
            found = await flight
        except RegistryError as error:
            self._negatives.note(repository, tag, identity, error)
            raise
        return self._answer(repository, tag, found, found.outcome(joined=joined))

    async def _fresh_or_stale(
        self, upstream: Upstream, repository: Repository, tag: Tag, state: TagState, held: Held
    ) -> ManifestFound:
        """Ask whether the tag moved, for as long as the answer seems to come; else what is held, marked stale."""
        failure = self._reason_not_to_ask(upstream, repository, tag, state)
        if failure is None:
            try:
                found, joined = await self._lookout.ask(upstream, repository, tag)
                return self._checked(repository, tag, found, joined=joined)
            except RegistryError as error:
                if error.failure is None:
                    raise
                failure = error.failure
        if (repository, tag) not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add((repository, tag))
            self._log.warning("a tag is served stale", image=f"{repository}:{tag}", why=failure)
        status = self._freshness.status(repository, tag, state, Outcome.STALE, time.time(), failure)
        return held.found(status)

    def _reason_not_to_ask(
        self, upstream: Upstream, repository: Repository, tag: Tag, state: TagState
    ) -> Failure | None:
        failure = self._deferrals.reason(repository, tag)
        if failure is None:
            failure = self._lookout.met(upstream, repository, tag)
        if failure is not None:
            return failure
        level = self._quotas.level(upstream)
        is_stretched = self._freshness.is_fresh(repository, tag, state, time.time(), stretch=_STRETCH)
        costs = level is Level.CRITICAL and not self._quotas.heads_are_free(upstream)
        return Failure.QUOTA if costs or (level is not Level.PLENTY and is_stretched) else None

    async def _check(
        self, upstream: Upstream, repository: Repository, tag: Tag, patience: Patience, is_probe: bool
    ) -> Held:
        """Ask by HEAD where the tag points, and fetch what is new."""
        asked_at, has_answered = time.time(), False
        state = self._store.shelf.tag(repository, tag)
        if state is None:
            self._lookout.answered(upstream, repository)
            raise _removed(repository, tag)
        try:
            may_get = self._quotas.level(upstream) is not Level.CRITICAL
            head = await self._source.check(
                upstream, repository, tag, patience.step, is_probe=is_probe, may_get=may_get
            )
            has_answered = True
            if isinstance(head, FetchedManifest):
                held, media_type = self._manifests.keep(repository, head), head.media_type
            else:
                self._lookout.answered(upstream, repository)
                held = await self._adopted(upstream, repository, state, head.digest, patience)
                media_type = state.media_type if head.digest == state.digest else head.media_type or held.media_type
        except RegistryError as error:
            if error.failure is None and error.status == 404:
                return await self._confirmed(upstream, repository, tag, patience)
            await self._note_failure(upstream, repository, tag, error, is_local=has_answered)
            raise
        self._remember(upstream, repository, tag, TagState(held.digest, media_type, len(held.body), asked_at))
        return held

    async def _confirmed(self, upstream: Upstream, repository: Repository, tag: Tag, patience: Patience) -> Held:
        """Return where a tag points after all: a HEAD's 404 for one that is held is believed once a GET confirms it.

        Raises:
            RegistryError: it points to nothing, the GET failed, or the quota is too short for one.
        """
        if self._quotas.level(upstream) is Level.CRITICAL:
            raise self._defer(repository, tag, Failure.QUOTA)
        return await self._get(upstream, repository, tag, patience.step)

    async def _note_failure(
        self, upstream: Upstream, repository: Repository, tag: Tag, error: RegistryError, *, is_local: bool
    ) -> None:
        """Note that a check failed; `is_local` if the upstream said where the tag points, and more could not be had."""
        if error.failure is Failure.QUOTA:
            raise self._defer(repository, tag, Failure.QUOTA)
        if error.failure is None and upstream.has_credentials:
            error.failure = Failure.CREDENTIALS
        if error.failure is not None:
            await self._lookout.failed(upstream, repository, tag, error, is_local=is_local)

    async def _adopted(
        self, upstream: Upstream, repository: Repository, state: TagState, digest: Digest, patience: Patience
    ) -> Held:
        """Return the manifest that a tag points to now, fetched if it is not held.

        Raises:
            RegistryError: it cannot be had; with `Failure.QUOTA` if the quota is too short for what has another answer.
        """
        held = self._manifests.held(repository, digest)
        if held is not None:
            return held
        if self._quotas.level(upstream) is Level.PLENTY:
            return await self._manifests.fetch(upstream, repository, digest, patience.step)
        async with self._adopting.setdefault(upstream.url, asyncio.Lock()):
            return await self._adopted_sparingly(upstream, repository, state, digest, patience)

    async def _adopted_sparingly(
        self, upstream: Upstream, repository: Repository, state: TagState, digest: Digest, patience: Patience
    ) -> Held:
        """Fetch a manifest together with those of the platforms that were pulled before, or nothing at all.

        A tag that moved to an index whose platforms can no longer be fetched would be worse than a stale one.
        """
        old = self._manifests.held(repository, state.digest)
        pulled = [] if old is None else [each for each in platforms(old.body) if self._is_held(repository, each.digest)]
        remaining, limit = self._quotas.remaining(upstream), self._quotas.limit(upstream)
        if remaining is None or limit is None or remaining - 1 - len(pulled) < limit * _RESERVE:
            raise RegistryError(ErrorCode.TOOMANYREQUESTS, "the quota runs short", failure=Failure.QUOTA)
        held = await self._manifests.fetch(upstream, repository, digest, patience.step)
        wanted = {each.platform for each in pulled}
        for child in platforms(held.body):
            if child.platform in wanted and not self._is_held(repository, child.digest):
                await self._manifests.fetch(upstream, repository, child.digest, patience.step)
        return held

    def _is_held(self, repository: Repository, digest: Digest) -> bool:
        return self._manifests.held(repository, digest) is not None

    async def _get(
        self, upstream: Upstream, repository: Repository, tag: Tag, step: Callable[[int], None] = lambda _: None
    ) -> Held:
        """Fetch what the tag points to, and remember where that is."""
        asked_at = time.time()
        try:
            held = await self._manifests.fetch(upstream, repository, tag, step)
        except RegistryError as error:
            is_known = self._store.shelf.tag(repository, tag) is not None
            if error.failure is not None:
                if is_known:
                    await self._lookout.failed(upstream, repository, tag, error, is_local=True)
            elif error.status == 404:
                self._lookout.answered(upstream, repository)
                self._negatives.note(repository, tag, "", error)
                if is_known and self._settings.on_deleted == "serve":
                    raise self._defer(repository, tag, Failure.DELETED) from None
                if is_known:
                    self._store.drop_tag(repository, tag)
            raise
        self._remember(upstream, repository, tag, TagState(held.digest, held.media_type, len(held.body), asked_at))
        return held

    def _remember(self, upstream: Upstream, repository: Repository, tag: Tag, state: TagState) -> None:
        self._lookout.answered(upstream, repository)
        self._told.discard((repository, tag))
        self._store.set_tag(repository, tag, state)

    def _defer(self, repository: Repository, tag: Tag, failure: Failure) -> RegistryError:
        """Let what is held stand for a while, and return the error that says so."""
        is_deleted = failure is Failure.DELETED
        seconds = self._settings.negative_ttl if is_deleted else self._freshness.ttl(repository, tag)
        self._deferrals.put(repository, tag, failure, seconds)
        code = ErrorCode.MANIFEST_UNKNOWN if is_deleted else ErrorCode.TOOMANYREQUESTS
        return RegistryError(code, f"{repository}:{tag} is not asked for now", failure=failure, retry_after=1)

    def _checked(self, repository: Repository, tag: Tag, held: Held, *, joined: bool) -> ManifestFound:
        outcome = held.outcome(joined=joined) if held.was_fetched else Outcome.REVALIDATED
        return self._answer(repository, tag, held, outcome)

    def _answer(self, repository: Repository, tag: Tag, held: Held, outcome: Outcome) -> ManifestFound:
        state = self._store.shelf.tag(repository, tag)
        if state is None and not held.is_kept:
            # Purged while it was on its way: who asked before has it all the same.
            return held.found(CacheStatus(outcome, is_stored=False))
        if state is None:
            raise _removed(repository, tag)
        return held.found(self._freshness.status(repository, tag, state, outcome, time.time()))


def _removed(repository: Repository, tag: Tag) -> RegistryError:
    return RegistryError(ErrorCode.MANIFEST_UNKNOWN, f"{repository}:{tag} was just removed")
