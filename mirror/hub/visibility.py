"""Who may have what the mirror's own credentials open: whether a repository is public, asked once an hour."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NamedTuple

import structlog

from mirror.channel import ManifestFound
from mirror.config import Upstream
from mirror.hub.answers import Answers, Judged
from mirror.hub.flights import Flights
from mirror.hub.patience import Patience
from mirror.observe.cache_status import Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Reference, Repository
from mirror.source.upstream import AnonymousCaller, Sample
from mirror.store import Link, Store, Verdict
from mirror.store.verdicts import VERDICT_SECONDS, is_current, needs_verdict, refusal

_RETRY_SECONDS = 3.0
# For so long after a failure the next answer is nothing that anybody waits for who need not.
_GRUDGE_SECONDS = 60.0
_MOST_FAILURES = 10_000
_MOST_TRIES = 3


class _Failure(NamedTuple):
    """Why an upstream gave no verdict, and until when, on the monotonic clock, it is not asked again."""

    until: float
    error: RegistryError


class Visibility:
    """Lets requests pass that the policy of their upstream allows. Nothing is served by the hub without."""

    def __init__(self, caller: AnonymousCaller, store: Store, patience: float, answers: Answers | None = None) -> None:
        """Ask `caller`; whoever can go by an older verdict waits `patience` seconds for a new one.

        By `answers` replicas of a fleet share their verdicts.
        """
        self._caller = caller
        self._store = store
        self._patience = patience
        self._answers = answers or Answers.unshared()
        self._flights: Flights[Verdict] = Flights()
        self._failures: dict[tuple[Repository, Sample | None], _Failure] = {}
        self._since: dict[Repository, float] = {}
        self._log = structlog.get_logger("layover.hub")

    async def close(self) -> None:
        """End every request under way."""
        await self._flights.close()

    async def manifest(
        self,
        upstream: Upstream,
        repository: Repository,
        reference: Reference,
        find: Callable[[], Awaitable[ManifestFound]],
    ) -> ManifestFound:
        """Return what `find` does, if it may be served. While an older verdict is checked, it is found already.

        Raises:
            RegistryError: it may not be served, or `find` raised it.
        """
        link = self._link_of(repository, reference)
        if not needs_verdict(upstream, link):
            return await find()
        sample = Sample("manifest", reference)
        verdict = self._last(repository, link)
        if verdict is None or verdict.is_private:
            try:
                await self._pass(upstream, repository, [sample], verdict, is_held=link is not None)
            except RegistryError as error:
                if error.status != 404:
                    raise
                await find()
                # Some upstreams deny to strangers that it is there at all.
                raise refusal(upstream, repository, is_known=False) from None
            return await find()
        checking = self._checking(upstream, repository, sample, verdict)
        found = await find()
        if checking is not None and found.status.outcome is not Outcome.STALE:
            await self._wait(repository, checking)
        verdict = self._last(repository, self._store.shelf.link(repository, found.digest))
        if verdict is None:
            await self._pass(upstream, repository, [sample], None, is_held=True)
        elif verdict.is_private:
            raise refusal(upstream, repository)
        return found

    async def blob(self, upstream: Upstream, repository: Repository, digest: Digest) -> None:
        """Let a request for a blob pass.

        Raises:
            RegistryError: it may not be served, or the upstream does not have it.
        """
        link = self._store.shelf.link(repository, digest)
        if needs_verdict(upstream, link):
            sample, verdict = Sample("blob", digest), self._last(repository, link)
            await self._pass(upstream, repository, [sample], verdict, is_held=link is not None)

    async def listing(self, upstream: Upstream, repository: Repository) -> None:
        """Let a request for a listing pass.

        Raises:
            RegistryError: it may not be served.
        """
        verdict = self._store.shelf.verdict(repository)
        was_private = verdict is not None and verdict.is_private and upstream.private == "refuse"
        if not (was_private or needs_verdict(upstream, None)):
            return
        if verdict is not None and is_current(verdict, time.time()):
            if verdict.is_private:
                raise refusal(upstream, repository)
            return
        held = list(self._held_sample(repository))
        await self._pass(upstream, repository, [*held, Sample("tags")], verdict, is_held=bool(held))

    async def _pass(
        self,
        upstream: Upstream,
        repository: Repository,
        samples: Sequence[Sample],
        verdict: Verdict | None,
        *,
        is_held: bool,
    ) -> None:
        """Find out by one of `samples` whether a repository is public, or go by an older `verdict` if that takes long.

        Raises:
            RegistryError: it is not; or nobody can tell: why not, if what is asked for is not held.
        """
        if verdict is None:
            verdict = await self._first(upstream, repository, samples, is_held=is_held)
        elif (checking := self._checking(upstream, repository, samples[0], verdict)) is not None:
            await self._wait(repository, checking)
            verdict = self._store.shelf.verdict(repository) or verdict
        if verdict.is_private:
            raise refusal(upstream, repository)

    async def _first(
        self, upstream: Upstream, repository: Repository, samples: Sequence[Sample], *, is_held: bool
    ) -> Verdict:
        for sample in samples:
            try:
                return await self._asked(upstream, repository, sample)
            except RegistryError as error:
                if error.status == 404 and sample is not samples[-1]:
                    continue
                if not is_held or error.code is ErrorCode.DENIED:
                    raise
                raise refusal(upstream, repository, is_known=False) from None
        raise AssertionError("there is always a sample")

    async def _asked(self, upstream: Upstream, repository: Repository, sample: Sample) -> Verdict:
        """Return the verdict of a flight about this very sample, or of any that found one."""
        for _ in range(_MOST_TRIES):
            verdict = self._store.shelf.verdict(repository)
            if verdict is not None:
                return verdict
            self._repeat_failure(repository, sample)
            flight, joined = self._flights.join(
                repository, lambda: self._ask(upstream, repository, sample, is_quick=False)
            )
            try:
                return await flight
            except RegistryError as error:
                # That another sample is not there tells nothing of this one.
                if not joined or error.failure is not None:
                    raise
        raise RegistryError(ErrorCode.UNAVAILABLE, f"too many ask for {repository} at once", retry_after=1)

    def _checking(
        self, upstream: Upstream, repository: Repository, sample: Sample, verdict: Verdict
    ) -> asyncio.Future[Verdict] | None:
        """Return the flight that looks whether a verdict still holds, if that is worth waiting for."""
        if is_current(verdict, time.time()):
            return None
        now = time.monotonic()
        failures = self._failures_of(repository, sample)
        failed_until = max((each.until for each in failures), default=-math.inf)
        if now < failed_until:
            return None
        flight, _ = self._flights.join(repository, lambda: self._ask(upstream, repository, sample, is_quick=True))
        return None if now < failed_until + _GRUDGE_SECONDS else flight

    async def _wait(self, repository: Repository, checking: asyncio.Future[Verdict]) -> None:
        """Wait for a flight, but no longer than whoever began it."""
        since = self._since.get(repository, time.monotonic())
        await asyncio.wait({checking}, timeout=max(0.0, since + self._patience - time.monotonic()))

    async def _ask(self, upstream: Upstream, repository: Repository, sample: Sample, *, is_quick: bool) -> Verdict:
        """Return the verdict that a replica was given within the last hour, or this one is given now."""
        self._since[repository] = time.monotonic()
        known = self._store.shelf.verdict(repository)
        since = max(time.time() - VERDICT_SECONDS, -math.inf if known is None else known.checked_at)
        patience = Patience(self._patience) if is_quick else None
        try:
            async with self._answers.ask(Judged, upstream, repository, since=since, patience=patience) as question:
                if isinstance(question.told, Judged):
                    verdict = Verdict(question.told.is_private, question.at)
                else:
                    verdict = await self._found(upstream, repository, sample, is_quick=is_quick)
                    question.answered(Judged(verdict.is_private), VERDICT_SECONDS)
        finally:
            del self._since[repository]
        self._tell(upstream, repository, verdict)
        self._store.judge(repository, verdict)
        self._failures.pop((repository, None), None)
        return verdict

    async def _found(self, upstream: Upstream, repository: Repository, sample: Sample, *, is_quick: bool) -> Verdict:
        asked_at = time.time()
        try:
            is_public = await self._caller.may_have(upstream, repository, sample, is_quick=is_quick)
        except RegistryError as error:
            if error.failure is not None:
                wait = error.retry_after or 0 if error.failure is Failure.TOO_MANY else 0
                self._note_failure(repository, None, max(_RETRY_SECONDS, wait), error)
            elif ":" not in sample.name:
                # What is asked for by digest may be there at any moment.
                self._note_failure(repository, sample, _RETRY_SECONDS, error)
            raise
        if not is_public and sample.kind == "tags":
            # Some upstreams list for their members alone what anybody may pull.
            refused = refusal(upstream, repository)
            self._note_failure(repository, sample, VERDICT_SECONDS, refused)
            raise refused
        return Verdict(not is_public, asked_at)

    def _tell(self, upstream: Upstream, repository: Repository, verdict: Verdict) -> None:
        known = self._store.shelf.verdict(repository)
        if verdict.is_private and (known is None or not known.is_private):
            policy = f'upstreams."{upstream.label}".private = "{upstream.private}"'
            self._log.info("a repository is private and is not served", repository=str(repository), policy=policy)
        elif known is not None and known.is_private and not verdict.is_private:
            self._log.info("a repository that was private is public", repository=str(repository))

    def _repeat_failure(self, repository: Repository, sample: Sample) -> None:
        for failure in self._failures_of(repository, sample):
            if time.monotonic() < failure.until:
                raise failure.error.with_traceback(None)

    def _failures_of(self, repository: Repository, sample: Sample) -> list[_Failure]:
        keys = ((repository, None), (repository, sample))
        return [self._failures[key] for key in keys if key in self._failures]

    def _note_failure(
        self, repository: Repository, sample: Sample | None, seconds: float, error: RegistryError
    ) -> None:
        self._failures.pop((repository, sample), None)
        self._failures[repository, sample] = _Failure(time.monotonic() + seconds, error)
        while len(self._failures) > _MOST_FAILURES:
            del self._failures[next(iter(self._failures))]

    def _last(self, repository: Repository, link: Link | None) -> Verdict | None:
        """Return the last verdict; what was fetched without credentials is one, of unknown age."""
        verdict = self._store.shelf.verdict(repository)
        if verdict is None and link is not None and not link.is_guarded:
            return Verdict(is_private=False, checked_at=0.0)
        return verdict

    def _link_of(self, repository: Repository, reference: Reference) -> Link | None:
        """Return the link of a manifest that is held."""
        if isinstance(reference, Digest):
            return self._store.shelf.link(repository, reference)
        state = self._store.shelf.tag(repository, reference)
        return None if state is None else self._store.shelf.link(repository, state.digest)

    def _held_sample(self, repository: Repository) -> Iterator[Sample]:
        tag, found = self._store.shelf.any_tag(repository), self._store.shelf.any_link(repository)
        if tag is not None:
            yield Sample("manifest", tag)
        elif found is not None:
            digest, link = found
            yield Sample("manifest" if link.media_type is not None else "blob", digest)
