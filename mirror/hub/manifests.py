"""Manifests by digest: fetched once, verified, and kept for ever."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import NamedTuple

from mirror.channel import ManifestFound
from mirror.config import Upstream
from mirror.hub.answers import MOMENT_SECONDS, Answers, Kept
from mirror.hub.copies import Copies
from mirror.hub.flights import Flights
from mirror.hub.patience import Patience
from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Repository, Tag
from mirror.source.upstream import FetchedManifest, UpstreamManifests
from mirror.store import Link, Store

_MOST_ARRIVED = 10_000
# Replicas that said they have a manifest, and then have not.
_MOST_TRIES = 2


class Held(NamedTuple):
    """A manifest, and whether its bytes had to be fetched just now; it is not kept if it was purged meanwhile."""

    digest: Digest
    media_type: str
    body: bytes
    was_fetched: bool
    is_kept: bool = True

    def outcome(self, *, joined: bool) -> Outcome:
        """Return how it came about, for one who had it brought or `joined` another who did."""
        if not self.was_fetched:
            return Outcome.HIT
        return Outcome.JOINED if joined else Outcome.MISS

    def found(self, status: CacheStatus) -> ManifestFound:
        """Return the answer of a hub."""
        return ManifestFound(self.digest, self.media_type, self.body, status)


class Manifests:
    """Answers for manifests by digest. Of those who ask the same at once, anywhere, one asks the upstream."""

    def __init__(self, source: UpstreamManifests, store: Store, answers: Answers, copies: Copies) -> None:
        self._source = source
        self._store = store
        self._answers = answers
        self._copies = copies
        self._flights: Flights[Held] = Flights()
        self._recalls: Flights[Held | None] = Flights()
        self._arrived: dict[tuple[Repository, Digest], None] = {}

    async def close(self) -> None:
        """End every request under way."""
        await self._flights.close()
        await self._recalls.close()

    def forget(self, is_meant: Callable[[str], bool]) -> None:
        """Have the upstream asked anew for what is under way of some repositories."""
        for flights in (self._flights, self._recalls):
            flights.leave_all(lambda key: is_meant(str(key[0])))

    async def find(self, upstream: Upstream, repository: Repository, digest: Digest) -> ManifestFound:
        """Return a manifest by its digest.

        Raises:
            RegistryError: it is not held, and the upstream has none or failed.
        """
        held = self.held(repository, digest)
        if held is not None:
            return held.found(CacheStatus(Outcome.HIT))
        flight, joined = self._flights.join((repository, digest), lambda: self._bring(upstream, repository, digest))
        try:
            held = await flight
        except RegistryError as error:
            # Content of a public repository may stand in for itself under another one of the same upstream.
            held = self.held(repository.upstream, digest) if error.failure is not None else None
            if held is None:
                raise
            return held.found(CacheStatus(Outcome.STALE, ttl=-1, failure=error.failure))
        return held.found(CacheStatus(held.outcome(joined=joined)))

    def held(self, repository: Repository | str, digest: Digest) -> Held | None:
        """Return a manifest that is held and linked to the repository, or to any of the upstream named."""
        link = self._store.shelf.link(repository, digest)
        body = None if link is None or link.media_type is None else self._store.shelf.manifest(digest)
        if link is None or link.media_type is None or body is None:
            return None
        if digest in self._store.shelf.unpublished:
            self._store.publish_manifest(digest, body)
        return Held(digest, link.media_type, body, was_fetched=False)

    async def recall(self, repository: Repository, tag: Tag, digest: Digest) -> tuple[Held | None, bool]:
        """Return what a tag that is held points to, and whether another had begun to bring it.

        Where eviction took it here it comes from a replica that has it still: no upstream is asked. None if none has.
        """
        held = self.held(repository, digest)
        if held is not None:
            return held, False
        flight, joined = self._recalls.join((repository, tag, digest), lambda: self._recall(repository, tag, digest))
        return await flight, joined

    async def fetch_tag(self, upstream: Upstream, repository: Repository, tag: Tag, patience: Patience | None) -> Held:
        """Fetch the manifest that a tag points to from the upstream, and keep it.

        Raises:
            RegistryError: the upstream has none, or failed.
        """
        step = patience.step if patience is not None else _ignore
        began = self._store.purges.count
        return self.keep(repository, await self._source.fetch(upstream, repository, tag, step), began, tag)

    async def fetch(
        self,
        upstream: Upstream,
        repository: Repository,
        digest: Digest,
        patience: Patience | None = None,
        *,
        holder: str | None = None,
    ) -> Held:
        """Fetch a manifest by its digest, and keep it: from another replica if one has it, else from the upstream.

        `holder` is the one to ask first, empty for none in particular, where the repository is known to have it.

        Raises:
            RegistryError: the upstream has none, or failed.
        """
        began = self._store.purges.count
        if holder and (found := await self._copies.of(holder, repository, digest, patience)) is not None:
            return self.keep(repository, found, began)
        is_known = holder is not None or self._store.shelf.link(repository, digest) is not None
        since = -math.inf
        for _ in range(_MOST_TRIES):
            asking = self._answers.ask(Kept, upstream, repository, digest, since=since, patience=patience)
            async with asking as question:
                if not isinstance(question.told, Kept):
                    found = await self._find(upstream, repository, digest, patience, is_known=is_known)
                    held = self.keep(repository, found, began)
                    question.answered(Kept(self._answers.replica))
                    return held
                found = await self._copies.of(question.told.holder, repository, digest, patience)
                found = found or await self._copies.of_any(repository, digest, patience)
                if found is not None:
                    return self.keep(repository, found, began)
                since = question.at + MOMENT_SECONDS
        return self.keep(repository, await self._source.fetch(upstream, repository, digest), began)

    async def _recall(self, repository: Repository, tag: Tag, digest: Digest) -> Held | None:
        began = self._store.purges.count
        found = await self._copies.of_any(repository, digest, None)
        return None if found is None else self.keep(repository, found, began, tag)

    async def _find(
        self, upstream: Upstream, repository: Repository, digest: Digest, patience: Patience | None, *, is_known: bool
    ) -> FetchedManifest:
        """Return a manifest of which no replica said that it has it.

        A sibling may have it all the same, from wherever. Whether this repository has it then only the upstream tells.
        """
        step = patience.step if patience is not None else _ignore
        if await self._copies.has_any(digest):
            with contextlib.suppress(RegistryError):
                if not is_known:
                    await self._source.head(upstream, repository, digest, step)
                found = await self._copies.of_any(repository, digest, patience)
                if found is not None:
                    return found
        return await self._source.fetch(upstream, repository, digest, step)

    def keep(
        self, repository: Repository, fetched: FetchedManifest, began: int | None = None, tag: Tag | None = None
    ) -> Held:
        """Keep a manifest that was fetched, unless it, or the tag it was asked for by, was purged meanwhile.

        `began` is how many purges there had been as it was asked for, None if it was only now.
        """
        purges = self._store.purges
        names: list[Tag | Digest] = [fetched.digest] if tag is None else [fetched.digest, tag]
        if began is not None and any(purges.took(repository, name, began) for name in names):
            return Held(fetched.digest, fetched.media_type, fetched.body, was_fetched=True, is_kept=False)
        self._arrived[repository, fetched.digest] = None
        if len(self._arrived) > _MOST_ARRIVED:
            del self._arrived[next(iter(self._arrived))]
        self._store.keep_manifest(repository, fetched.digest, fetched.media_type, fetched.body)
        return Held(fetched.digest, fetched.media_type, fetched.body, was_fetched=True)

    def take_arrival(self, repository: Repository, digest: Digest) -> bool:
        """Say, once, whether a manifest was fetched since the hub began or this was last asked."""
        has_arrived = (repository, digest) in self._arrived
        self._arrived.pop((repository, digest), None)
        return has_arrived

    async def _bring(self, upstream: Upstream, repository: Repository, digest: Digest) -> Held:
        """Have a digest served under a repository: by a HEAD if it is held under another one, else by fetching it."""
        elsewhere = self.held(repository.upstream, digest)
        if elsewhere is None:
            return await self.fetch(upstream, repository, digest)
        await self._source.head(upstream, repository, digest)
        self._store.link(repository, digest, Link(elsewhere.media_type, False, len(elsewhere.body)), elsewhere.body)
        return elsewhere


def _ignore(_: int) -> None:
    """Take a step of something that nobody waits for with patience."""
