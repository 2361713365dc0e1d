"""Where tags point: asked once for all who wait, of the other replicas first, and then of the upstream."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from mirror.config import FreshnessSettings, Upstream
from mirror.hub.adoption import Adoption
from mirror.hub.answers import MOMENT_SECONDS, Answers, Pointed, Question, Refused
from mirror.hub.deferrals import Deferrals
from mirror.hub.lookout import Lookout
from mirror.hub.manifests import Held, Manifests
from mirror.hub.negatives import Negatives
from mirror.hub.patience import Patience
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository, Tag
from mirror.source.upstream import FetchedManifest, Level, Quotas, UpstreamManifests
from mirror.store import Store, TagState
from mirror.store.freshness import Freshness

# Of a quota that runs short, times to live are this much longer.
_STRETCH = 2.0
# Times to live from which on replicas share what they are told.
_SHARED_SECONDS = 1.0


class _Subject(NamedTuple):
    """A tag that is asked about; without `patience` by those who have no other answer, as a probe by nobody."""

    upstream: Upstream
    repository: Repository
    tag: Tag
    patience: Patience | None = None
    is_probe: bool = False

    def step(self, weight: int) -> None:
        """Note that the request moved forward."""
        if self.patience is not None:
            self.patience.step(weight)


class Resolver:
    """Finds out what tags point to. Of those who ask the same at once, anywhere, one asks the upstream."""

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
        """Ask `source`; `identity` tells as whom, as a text that changes with the account."""
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

    async def close(self) -> None:
        """End every request under way."""
        await self._lookout.close()

    def forget(self, is_meant: Callable[[str], bool]) -> None:
        """Have the upstream asked anew about some repositories: what was purged is not to be answered for any more."""
        self._negatives.forget(is_meant)
        self._deferrals.forget(is_meant)
        self._lookout.leave(is_meant)

    async def bring(self, upstream: Upstream, repository: Repository, tag: Tag) -> tuple[Held, bool]:
        """Return what a tag points to of which nothing is held, and whether another had begun to bring it.

        Raises:
            RegistryError: the upstream has none or failed, now or within `negative_ttl`.
        """
        identity = await self._identity(upstream)
        self._negatives.check(repository, tag, identity)
        subject = _Subject(upstream, repository, tag)
        flight, joined = self._lookout.bring(repository, tag, lambda: self._bring(subject, identity))
        return await flight, joined

    async def check(self, upstream: Upstream, repository: Repository, tag: Tag) -> tuple[Held, bool]:
        """Return what a tag that is held points to now, however long that takes, and whether another had begun to ask.

        Raises:
            RegistryError: it points to nothing, or could not be asked for.
        """
        return await self._lookout.wait(upstream, repository, tag)

    async def check_soon(self, upstream: Upstream, repository: Repository, tag: Tag) -> tuple[Held, bool]:
        """Do so for as long as the answer seems to come.

        Raises:
            RegistryError: as for `check`; with `Failure.TIMEOUT` once nothing moves forward.
        """
        return await self._lookout.ask(upstream, repository, tag)

    async def recall(self, upstream: Upstream, repository: Repository, tag: Tag) -> Held | None:
        """Return what a tag pointed to of which nothing is held here, as another replica was told, however long ago.

        It is held from then on, as old as that answer is. None if nobody was told later than this replica, or has it.
        """
        since = self._checked_at(repository, tag)
        async with self._answers.ask(Pointed, upstream, repository, tag, since=since) as question:
            told = question.told
        if not isinstance(told, Pointed):
            return None
        held, _ = await self._manifests.recall(repository, tag, told.digest)
        if held is None or not held.is_kept:
            return None
        state = TagState(held.digest, held.media_type, len(held.body), question.at)
        if not self._freshness.may_be_stale(repository, tag, state, time.time()):
            return None
        self._store.set_tag(repository, tag, state)
        return held

    def reason_not_to_check(
        self, upstream: Upstream, repository: Repository, tag: Tag, state: TagState
    ) -> Failure | None:
        """Return why a tag is not asked about now, None if it may be; a client is about to be answered."""
        failure = self._deferrals.reason(repository, tag)
        if failure is None:
            failure = self._lookout.met(upstream, repository, tag)
        if failure is not None:
            return failure
        level = self._quotas.level(upstream)
        is_stretched = self._freshness.is_fresh(repository, tag, state, time.time(), stretch=_STRETCH)
        costs = level is Level.CRITICAL and not self._quotas.heads_are_free(upstream)
        return Failure.QUOTA if costs or (level is not Level.PLENTY and is_stretched) else None

    async def _bring(self, subject: _Subject, identity: str) -> Held:
        """Return what a tag points to of which nothing is held: whoever pulled it may have it still."""
        question: Question[Pointed] = Question()
        _, repository, tag, *_ = subject
        since = self._checked_at(repository, tag)
        ttl = self._freshness.ttl(repository, tag)
        try:
            async with self._answers.ask(Pointed, subject.upstream, repository, tag) as question:
                if question.told is None:
                    return await self._get(subject, question)
                lasts = self._settings.negative_ttl if isinstance(question.told, Refused) else ttl
                if question.at > since and question.age < lasts:
                    return await self._believe(subject, question)
            former = question.told
            since = max(since, time.time() - ttl, question.at + MOMENT_SECONDS)
            async with self._ask_fleet(subject, since) as question:
                if question.told is None:
                    return await self._find(subject, question, former)
                return await self._believe(subject, question)
        except RegistryError as error:
            self._negatives.note(repository, tag, identity, error, question.age)
            raise

    async def _check(
        self, upstream: Upstream, repository: Repository, tag: Tag, patience: Patience, is_probe: bool
    ) -> Held:
        """Ask where a tag points that is held, and fetch what is new."""
        state = self._store.shelf.tag(repository, tag)
        subject = _Subject(upstream, repository, tag, patience, is_probe)
        if state is None and is_probe:
            self._lookout.answered(upstream, repository)
            raise RegistryError(ErrorCode.MANIFEST_UNKNOWN, f"{repository}:{tag} was just removed")
        if state is None:
            return await self._bring(subject, await self._identity(upstream))
        since = max(state.checked_at, time.time() - self._freshness.ttl(repository, tag))
        async with self._ask_fleet(subject, since) as question:
            if question.told is not None:
                return await self._believe(subject, question)
            return await self._revalidate(subject, question, state)

    def _checked_at(self, repository: Repository, tag: Tag) -> float:
        """Return when this replica knew last where a tag points; before all times if it never did."""
        state = self._store.shelf.tag(repository, tag)
        return -math.inf if state is None else state.checked_at

    def _ask_fleet(self, subject: _Subject, since: float) -> AbstractAsyncContextManager[Question[Pointed]]:
        """Ask whether another replica was told later than `since` where a tag points.

        What is to be asked nearly every time each replica asks by itself: nobody's answer would be new enough for the
        next one, and all would wait in a row.
        """
        upstream, repository, tag, patience, _ = subject
        if self._freshness.ttl(repository, tag) < _SHARED_SECONDS:
            return contextlib.nullcontext(Question())
        return self._answers.ask(Pointed, upstream, repository, tag, since=since, patience=patience)

    async def _believe(self, subject: _Subject, question: Question[Pointed]) -> Held:
        """Return where a tag points as another replica was told, fetched if it is not held.

        Raises:
            RegistryError: the upstream refused, or what is new cannot be had.
        """
        upstream, repository, tag, patience, _ = subject
        told, state = question.told, self._store.shelf.tag(repository, tag)
        if isinstance(told, Refused):
            error = told.error(upstream)
            if state is not None and error.code is ErrorCode.DENIED:
                await self._note_failure(subject, error, is_local=True)
            else:
                await self._note_refusal(subject, error, question.age)
            raise error
        assert told is not None, "the caller has seen that it was told something"
        self._lookout.answered(upstream, repository)
        try:
            held = await self._adoption.adopt(upstream, repository, state, told, patience)
        except RegistryError as error:
            if state is not None:
                await self._note_failure(subject, error, is_local=True)
            raise
        media_type = state.media_type if state is not None and held.digest == state.digest else held.media_type
        self._remember(subject, held, media_type, question.at)
        return held

    async def _find(self, subject: _Subject, question: Question[Pointed], former: Pointed | Refused | None) -> Held:
        """Return what a tag points to of which nothing is held, by a HEAD: it was pulled once, as `former` tells."""
        try:
            return await self._head(subject, question, None, former, may_get=True)
        except RegistryError as error:
            if error.failure is not None or question.answer is not None:
                raise
            return await self._get(subject, question)

    async def _revalidate(self, subject: _Subject, question: Question[Pointed], state: TagState) -> Held:
        """Return what a tag that is held points to now, by a HEAD, whose 404 is believed once a GET confirms it."""
        try:
            return await self._head(subject, question, state, may_get=self._may_get(subject))
        except RegistryError as error:
            if error.failure is not None or error.status != 404:
                await self._note_failure(subject, error, is_local=question.answer is not None)
                raise
            if not self._may_get(subject):
                raise self._defer(subject, Failure.QUOTA) from None
            return await self._get(subject, question)

    def _may_get(self, subject: _Subject) -> bool:
        return self._quotas.level(subject.upstream) is not Level.CRITICAL

    async def _head(
        self,
        subject: _Subject,
        question: Question[Pointed],
        state: TagState | None,
        former: Pointed | Refused | None = None,
        *,
        may_get: bool,
    ) -> Held:
        """Ask by HEAD where a tag points, and fetch what is new; the question has an answer once that is known."""
        upstream, repository, tag, patience, is_probe = subject
        asked_at, began = time.time(), self._store.purges.count
        head = await self._source.check(upstream, repository, tag, subject.step, is_probe=is_probe, may_get=may_get)
        if isinstance(head, FetchedManifest):
            held, media_type = self._manifests.keep(repository, head, began, tag), head.media_type
        else:
            self._lookout.answered(upstream, repository)
            pointed = Pointed(head.digest)
            if isinstance(former, Pointed) and former.digest == head.digest:
                pointed = former
            question.answered(pointed)
            held = await self._adoption.adopt(upstream, repository, state, pointed, patience)
            media_type = head.media_type or held.media_type
            if state is not None and state.digest == head.digest:
                media_type = state.media_type
        return self._found(subject, question, held, media_type, asked_at)

    async def _get(self, subject: _Subject, question: Question[Pointed]) -> Held:
        """Fetch what a tag points to, and remember where that is."""
        upstream, repository, tag, patience, _ = subject
        asked_at = time.time()
        try:
            held = await self._manifests.fetch_tag(upstream, repository, tag, patience)
        except RegistryError as error:
            question.failed(error, self._settings.negative_ttl)
            await self._note_refusal(subject, error)
            raise
        return self._found(subject, question, held, held.media_type, asked_at)

    def _found(
        self, subject: _Subject, question: Question[Pointed], held: Held, media_type: str, asked_at: float
    ) -> Held:
        """Remember what the upstream answered, and let the other replicas know who has it."""
        self._remember(subject, held, media_type, asked_at)
        question.answered(Pointed(held.digest, self._answers.replica))
        return held

    def _remember(self, subject: _Subject, held: Held, media_type: str, asked_at: float) -> None:
        self._lookout.answered(subject.upstream, subject.repository)
        state = TagState(held.digest, media_type, len(held.body), asked_at)
        self._store.set_tag(subject.repository, subject.tag, state)

    async def _note_failure(self, subject: _Subject, error: RegistryError, *, is_local: bool) -> None:
        """Note that a check failed; `is_local` if the upstream said where the tag points, and more could not be had."""
        upstream, repository, tag, *_ = subject
        if error.failure is Failure.QUOTA:
            raise self._defer(subject, Failure.QUOTA)
        if error.failure is None and upstream.has_credentials:
            error.failure = Failure.CREDENTIALS
        if error.failure is not None:
            await self._lookout.failed(upstream, repository, tag, error, is_local=is_local)

    async def _note_refusal(self, subject: _Subject, error: RegistryError, age: float = 0.0) -> None:
        """Note that a GET found nothing, or failed, `age` seconds ago.

        Raises:
            RegistryError: what is held stays, and stands for a while.
        """
        upstream, repository, tag, *_ = subject
        is_known = self._store.shelf.tag(repository, tag) is not None
        if error.failure is not None:
            if is_known:
                await self._lookout.failed(upstream, repository, tag, error, is_local=True)
        elif error.status == 404:
            self._lookout.answered(upstream, repository)
            self._negatives.note(repository, tag, "", error, age)
            if is_known and self._settings.on_deleted == "serve":
                raise self._defer(subject, Failure.DELETED) from None
            if is_known:
                self._store.drop_tag(repository, tag)

    def _defer(self, subject: _Subject, failure: Failure) -> RegistryError:
        """Let what is held stand for a while, and return the error that says so."""
        _, repository, tag, *_ = subject
        is_deleted = failure is Failure.DELETED
        seconds = self._settings.negative_ttl if is_deleted else self._freshness.ttl(repository, tag)
        self._deferrals.put(repository, tag, failure, seconds)
        code = ErrorCode.MANIFEST_UNKNOWN if is_deleted else ErrorCode.TOOMANYREQUESTS
        return RegistryError(code, f"{repository}:{tag} is not asked for now", failure=failure, retry_after=1)
