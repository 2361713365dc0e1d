"""Tags: as fresh as `[freshness]` asks, at one HEAD for all who wait, and what is held while the upstream fails."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import structlog

from mirror.channel import ManifestFound
from mirror.config import FreshnessSettings, Upstream
from mirror.hub.adoption import Adoption
from mirror.hub.answers import MOMENT_SECONDS, Answers, Pointed, Question, Refused
from mirror.hub.deferrals import Deferrals
from mirror.hub.lookout import Lookout
from mirror.hub.manifests import Held, Manifests
from mirror.hub.negatives import Negatives
from mirror.hub.patience import Patience
from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository, Tag
from mirror.source.upstream import FetchedManifest, Level, Quotas, UpstreamManifests
from mirror.store import Store, TagState
from mirror.store.freshness import Freshness

# Of a quota that runs short, times to live are this much longer.
_STRETCH = 2.0
# Times to live from which on replicas share what they are told.
_SHARED_SECONDS = 1.0
_MOST_TOLD = 10_000


class Tags:
    """Answers for manifests by tag. Of those who ask the same at once, anywhere, one asks the upstream."""

    def __init__(
        self,
        source: UpstreamManifests,
        manifests: Manifests,
        answers: Answers,
        store: Store,
        settings: FreshnessSettings,
        quotas: Quotas,
        identity: Callable[[Upstream], Awaitable[str]],
    ) -> None:
        """Ask `source`; `identity` tells as whom, as a text that changes with the credentials."""
        self._source = source
        self._manifests = manifests
        self._answers = answers
        self._adoption = Adoption(manifests, quotas)
        self._store = store
        self._settings = settings
        self._freshness = Freshness(settings)
        self._quotas = quotas
        self._identity = identity
        self._negatives = Negatives(settings.negative_ttl)
        self._deferrals = Deferrals()
        self._lookout: Lookout[Tag, Held] = Lookout(self._check, identity, settings.revalidate_timeout)
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
        flight, joined = self._lookout.bring(repository, tag, lambda: self._bring(upstream, repository, tag, identity))
        found = await flight
        return self._answer(repository, tag, found, found.outcome(joined=joined))

    async def _bring(self, upstream: Upstream, repository: Repository, tag: Tag, identity: str) -> Held:
        """Return what a tag points to of which nothing is held."""
        question: Question[Pointed] = Question()
        state = self._store.shelf.tag(repository, tag)
        since = -math.inf if state is None else state.checked_at
        try:
            async with self._answers.ask(Pointed, upstream, repository, tag) as question:
                if question.told is None:
                    return await self._get(upstream, repository, tag, question)
                if question.at > since and self._is_believed(repository, tag, question):
                    return await self._believe(upstream, repository, tag, question)
            former = question.told
            since = max(since, time.time() - self._freshness.ttl(repository, tag), question.at + MOMENT_SECONDS)
            async with self._ask_fleet(upstream, repository, tag, since) as question:
                if question.told is None:
                    return await self._look_up(upstream, repository, tag, question, former)
                return await self._believe(upstream, repository, tag, question)
        except RegistryError as error:
            self._negatives.note(repository, tag, identity, error, question.age)
            raise

    def _ask_fleet(
        self, upstream: Upstream, repository: Repository, tag: Tag, since: float, patience: Patience | None = None
    ) -> AbstractAsyncContextManager[Question[Pointed]]:
        """Ask whether another replica was told later than `since` where a tag points.

        What is to be asked nearly every time each replica asks by itself: nobody's answer would be new enough for the
        next one, and all would wait in a row.
        """
        if self._freshness.ttl(repository, tag) < _SHARED_SECONDS:
            return contextlib.nullcontext(Question())
        return self._answers.ask(Pointed, upstream, repository, tag, since=since, patience=patience)

    def _is_believed(self, repository: Repository, tag: Tag, question: Question[Pointed]) -> bool:
        is_refused = isinstance(question.told, Refused)
        return question.age < (self._settings.negative_ttl if is_refused else self._freshness.ttl(repository, tag))

    async def _look_up(
        self,
        upstream: Upstream,
        repository: Repository,
        tag: Tag,
        question: Question[Pointed],
        former: Pointed | Refused | None,
    ) -> Held:
        """Return what a tag points to that was pulled once, as a `former` answer tells, by a HEAD.

        Whoever pulled it may have it still.
        """
        asked_at, began = time.time(), self._store.purges.count
        try:
            head = await self._source.check(upstream, repository, tag, lambda _: None, is_probe=False, may_get=True)
        except RegistryError as error:
            if error.failure is not None:
                raise
            return await self._get(upstream, repository, tag, question)
        if isinstance(head, FetchedManifest):
            held = self._manifests.keep(repository, head, began, tag)
        else:
            pointed = Pointed(head.digest)
            if isinstance(former, Pointed) and former.digest == head.digest:
                pointed = former
            held = await self._adoption.adopt(upstream, repository, None, pointed)
        self._remember(upstream, repository, tag, TagState(held.digest, held.media_type, len(held.body), asked_at))
        question.answered(Pointed(held.digest, self._answers.replica))
        return held

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
        """Ask where the tag points, and fetch what is new."""
        state = self._store.shelf.tag(repository, tag)
        if state is None:
            self._lookout.answered(upstream, repository)
            raise _removed(repository, tag)
        since = max(state.checked_at, time.time() - self._freshness.ttl(repository, tag))
        async with self._ask_fleet(upstream, repository, tag, since, patience) as question:
            if question.told is not None:
                return await self._believe(upstream, repository, tag, question, patience)
            return await self._ask(upstream, repository, tag, state, question, patience, is_probe=is_probe)

    async def _believe(
        self,
        upstream: Upstream,
        repository: Repository,
        tag: Tag,
        question: Question[Pointed],
        patience: Patience | None = None,
    ) -> Held:
        """Return where a tag points as another replica was told, fetched if it is not held.

        Raises:
            RegistryError: the upstream refused, or what is new cannot be had.
        """
        told, state = question.told, self._store.shelf.tag(repository, tag)
        if isinstance(told, Refused):
            error = told.error(upstream)
            if state is not None and error.code is ErrorCode.DENIED:
                await self._note_failure(upstream, repository, tag, error, is_local=True)
            else:
                await self._note_refusal(upstream, repository, tag, error, question.age)
            raise error
        assert told is not None, "the caller has seen that it was told something"
        self._lookout.answered(upstream, repository)
        try:
            held = await self._adoption.adopt(upstream, repository, state, told, patience)
        except RegistryError as error:
            if state is not None:
                await self._note_failure(upstream, repository, tag, error, is_local=True)
            raise
        media_type = state.media_type if state is not None and held.digest == state.digest else held.media_type
        self._remember(upstream, repository, tag, TagState(held.digest, media_type, len(held.body), question.at))
        return held

    async def _ask(
        self,
        upstream: Upstream,
        repository: Repository,
        tag: Tag,
        state: TagState,
        question: Question[Pointed],
        patience: Patience,
        *,
        is_probe: bool,
    ) -> Held:
        """Ask by HEAD where the tag points, and fetch what is new."""
        asked_at, began, has_answered = time.time(), self._store.purges.count, False
        try:
            may_get = self._quotas.level(upstream) is not Level.CRITICAL
            head = await self._source.check(
                upstream, repository, tag, patience.step, is_probe=is_probe, may_get=may_get
            )
            has_answered = True
            if isinstance(head, FetchedManifest):
                held, media_type = self._manifests.keep(repository, head, began, tag), head.media_type
            else:
                self._lookout.answered(upstream, repository)
                pointed = Pointed(head.digest)
                question.answered(pointed)
                held = await self._adoption.adopt(upstream, repository, state, pointed, patience)
                media_type = state.media_type if head.digest == state.digest else head.media_type or held.media_type
        except RegistryError as error:
            if error.failure is None and error.status == 404:
                return await self._confirmed(upstream, repository, tag, question, patience)
            await self._note_failure(upstream, repository, tag, error, is_local=has_answered)
            raise
        self._remember(upstream, repository, tag, TagState(held.digest, media_type, len(held.body), asked_at))
        question.answered(Pointed(held.digest, self._answers.replica))
        return held

    async def _confirmed(
        self, upstream: Upstream, repository: Repository, tag: Tag, question: Question[Pointed], patience: Patience
    ) -> Held:
        """Return where a tag points after all: a HEAD's 404 for one that is held is believed once a GET confirms it.

        Raises:
            RegistryError: it points to nothing, the GET failed, or the quota is too short for one.
        """
        if self._quotas.level(upstream) is Level.CRITICAL:
            raise self._defer(repository, tag, Failure.QUOTA)
        return await self._get(upstream, repository, tag, question, patience)

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

    async def _get(
        self,
        upstream: Upstream,
        repository: Repository,
        tag: Tag,
        question: Question[Pointed],
        patience: Patience | None = None,
    ) -> Held:
        """Fetch what the tag points to, and remember where that is."""
        asked_at = time.time()
        try:
            held = await self._manifests.fetch_tag(upstream, repository, tag, patience)
        except RegistryError as error:
            question.failed(error, self._settings.negative_ttl)
            await self._note_refusal(upstream, repository, tag, error)
            raise
        self._remember(upstream, repository, tag, TagState(held.digest, held.media_type, len(held.body), asked_at))
        question.answered(Pointed(held.digest, self._answers.replica))
        return held

    async def _note_refusal(
        self, upstream: Upstream, repository: Repository, tag: Tag, error: RegistryError, age: float = 0.0
    ) -> None:
        """Note that a GET found nothing, or failed, `age` seconds ago.

        Raises:
            RegistryError: what is held stays, and stands for a while.
        """
        is_known = self._store.shelf.tag(repository, tag) is not None
        if error.failure is not None:
            if is_known:
                await self._lookout.failed(upstream, repository, tag, error, is_local=True)
        elif error.status == 404:
            self._lookout.answered(upstream, repository)
            self._negatives.note(repository, tag, "", error, age)
            if is_known and self._settings.on_deleted == "serve":
                raise self._defer(repository, tag, Failure.DELETED) from None
            if is_known:
                self._store.drop_tag(repository, tag)

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
