"""Manifests: by digest for ever, by tag as fresh as `[freshness]` asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

import structlog

from mirror.channel import ManifestFound
from mirror.config import FreshnessSettings, Upstream
from mirror.hub.flights import Flights
from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Reference, Repository, Tag
from mirror.source.upstream import UpstreamManifests
from mirror.store import Link, Store, TagState
from mirror.store.freshness import seconds_left, status_of

LONGEST_WAIT = 5.0


class _Held(NamedTuple):
    """What a flight brought home: a manifest, and whether its bytes had to be fetched."""

    digest: Digest
    media_type: str
    body: bytes
    was_fetched: bool


class Manifests:
    """Answers for manifests. Of those who ask the same at once, one asks the upstream."""

    def __init__(self, source: UpstreamManifests, store: Store, freshness: FreshnessSettings) -> None:
        self._source = source
        self._store = store
        self._freshness = freshness
        self._flights: Flights[_Held] = Flights()
        self._steps: dict[tuple[Repository, Tag], asyncio.Event] = {}
        self._log = structlog.get_logger("layover.hub")

    async def close(self) -> None:
        """End every request under way."""
        await self._flights.close()

    async def by_digest(self, upstream: Upstream, repository: Repository, digest: Digest) -> ManifestFound:
        """Return a manifest by its digest.

        Raises:
            RegistryError: it is not held, and the upstream has none or failed.
        """
        held = self._held(repository, digest)
        if held is not None:
            return _found(held, CacheStatus(Outcome.HIT))
        flight, joined = self._flights.join((repository, digest), lambda: self._bring(upstream, repository, digest))
        try:
            held = await flight
        except RegistryError as error:
            # Content of a public repository may stand in for itself under another one of the same upstream.
            held = self._held(repository.upstream, digest) if error.failure is not None else None
            if held is None:
                raise
            return _found(held, CacheStatus(Outcome.STALE, ttl=-1, failure=error.failure))
        return _found(held, CacheStatus(_outcome(held, joined=joined)))

    async def by_tag(self, upstream: Upstream, repository: Repository, tag: Tag) -> ManifestFound:
        """Return the manifest that a tag points to.

        Raises:
            RegistryError: the tag is not held, and the upstream has none or failed; or the upstream says it is gone.
        """
        state = self._store.shelf.tag(repository, tag)
        held = None if state is None else self._held(repository, state.digest)
        if state is None or held is None:
            flight, joined = self._flights.join((repository, tag), lambda: self._get(upstream, repository, tag))
            found = await flight
            return self._answer(repository, tag, found, _outcome(found, joined=joined))
        if seconds_left(state, self._freshness, time.time()) > 0:
            return self._answer(repository, tag, held, Outcome.HIT)
        return await self._revalidated(upstream, repository, tag, state, held)

    async def _revalidated(
        self, upstream: Upstream, repository: Repository, tag: Tag, state: TagState, held: _Held
    ) -> ManifestFound:
        """Ask whether the tag moved, for as long as the answer seems to come; else what is held, marked stale."""
        step = self._steps.setdefault((repository, tag), asyncio.Event())
        flight, joined = self._flights.join(
            (repository, tag), lambda: self._check(upstream, repository, tag, state, step)
        )
        failure = Failure.TIMEOUT
        try:
            if await self._arrives(flight, step):
                found = await flight
                outcome = _outcome(found, joined=joined) if found.was_fetched else Outcome.REVALIDATED
                return self._answer(repository, tag, found, outcome)
        except RegistryError as error:
            if error.failure is None:
                raise
            failure = error.failure
        self._log.warning("a tag is served stale", image=f"{repository}:{tag}", why=failure)
        status = status_of(state, self._freshness, time.time(), Outcome.STALE, failure)
        return _found(held, status)

    async def _arrives(self, flight: asyncio.Future[_Held], step: asyncio.Event) -> bool:
        """Wait until the flight lands; False once nothing moved for `revalidate_timeout`, or 5 s went by in all."""
        deadline = time.monotonic() + LONGEST_WAIT
        while not flight.done():
            step.clear()
            patience = min(self._freshness.revalidate_timeout, deadline - time.monotonic())
            stepped = asyncio.ensure_future(step.wait())
            try:
                waiting: set[asyncio.Future[object]] = {flight, stepped}  # type: ignore[arg-type]
                done, _ = await asyncio.wait(waiting, timeout=max(0.0, patience), return_when=asyncio.FIRST_COMPLETED)
            finally:
                stepped.cancel()
            if not done:
                return False
        return True

    async def _check(
        self, upstream: Upstream, repository: Repository, tag: Tag, state: TagState, step: asyncio.Event
    ) -> _Held:
        """Ask by HEAD where the tag points, and fetch what is new."""
        asked_at = time.time()
        try:
            head = await self._source.head(upstream, repository, tag, step.set)
            if head.digest is None:
                return await self._get(upstream, repository, tag, step.set)
            media_type = head.media_type if head.digest != state.digest else state.media_type
            held = self._held(repository, head.digest)
            if held is None:
                held = await self._fetch(upstream, repository, head.digest, step.set)
            new = TagState(held.digest, media_type or held.media_type, len(held.body), asked_at)
            self._store.set_tag(repository, tag, new)
            return held
        except RegistryError as error:
            if error.failure is not None or error.status != 404:
                raise
            # A HEAD's 404 for a tag that is held is believed once a GET confirms it.
            return await self._get(upstream, repository, tag, step.set)
        finally:
            self._steps.pop((repository, tag), None)

    async def _get(
        self, upstream: Upstream, repository: Repository, tag: Tag, step: Callable[[], None] = lambda: None
    ) -> _Held:
        """Fetch what the tag points to, and remember where that is."""
        asked_at = time.time()
        try:
            held = await self._fetch(upstream, repository, tag, step)
        except RegistryError as error:
            if error.status == 404 and self._store.shelf.tag(repository, tag) is not None:
                self._store.drop_tag(repository, tag)
            raise
        self._store.set_tag(repository, tag, TagState(held.digest, held.media_type, len(held.body), asked_at))
        return held

    async def _bring(self, upstream: Upstream, repository: Repository, digest: Digest) -> _Held:
        """Have a digest served under a repository: by a HEAD if it is held under another one, else by fetching it."""
        elsewhere = self._elsewhere(repository, digest)
        if elsewhere is None:
            return await self._fetch(upstream, repository, digest)
        await self._source.head(upstream, repository, digest, lambda: None)
        self._store.link(repository, digest, Link(elsewhere.media_type, False, len(elsewhere.body)), elsewhere.body)
        return elsewhere

    async def _fetch(
        self,
        upstream: Upstream,
        repository: Repository,
        reference: Reference,
        step: Callable[[], None] = lambda: None,
    ) -> _Held:
        fetched = await self._source.fetch(upstream, repository, reference, step)
        self._store.keep_manifest(repository, fetched.digest, fetched.media_type, fetched.body)
        return _Held(fetched.digest, fetched.media_type, fetched.body, was_fetched=True)

    def _held(self, repository: Repository | str, digest: Digest) -> _Held | None:
        """Return a manifest that is held and linked to the repository, or to any of the upstream named."""
        link = self._store.shelf.link(repository, digest)
        body = None if link is None or link.media_type is None else self._store.shelf.manifest(digest)
        if link is None or link.media_type is None or body is None:
            return None
        if digest in self._store.shelf.unpublished:
            self._store.publish_manifest(digest, body)
        return _Held(digest, link.media_type, body, was_fetched=False)

    def _elsewhere(self, repository: Repository, digest: Digest) -> _Held | None:
        return self._held(repository.upstream, digest)

    def _answer(self, repository: Repository, tag: Tag, held: _Held, outcome: Outcome) -> ManifestFound:
        state = self._store.shelf.tag(repository, tag)
        if state is None:
            raise RegistryError(ErrorCode.MANIFEST_UNKNOWN, f"{repository}:{tag} was just removed")
        return _found(held, status_of(state, self._freshness, time.time(), outcome))


def _found(held: _Held, status: CacheStatus) -> ManifestFound:
    return ManifestFound(held.digest, held.media_type, held.body, status)


def _outcome(held: _Held, *, joined: bool) -> Outcome:
    if not held.was_fetched:
        return Outcome.HIT
    return Outcome.JOINED if joined else Outcome.MISS
