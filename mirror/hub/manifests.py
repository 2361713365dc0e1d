"""Manifests by digest: fetched once, verified, and kept for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mirror.channel import ManifestFound
from mirror.config import Upstream
from mirror.hub.flights import Flights
from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Reference, Repository
from mirror.source.upstream import FetchedManifest, UpstreamManifests
from mirror.store import Link, Store

_MOST_ARRIVED = 10_000


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
    """Answers for manifests by digest. Of those who ask the same at once, one asks the upstream."""

    def __init__(self, source: UpstreamManifests, store: Store) -> None:
        self._source = source
        self._store = store
        self._flights: Flights[Held] = Flights()
        self._arrived: dict[tuple[Repository, Digest], None] = {}

    async def close(self) -> None:
        """End every request under way."""
        await self._flights.close()

    def forget(self, is_meant: Callable[[str], bool]) -> None:
        """Have the upstream asked anew for what is under way of some repositories."""
        self._flights.leave_all(lambda key: is_meant(str(key[0])))

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

    async def fetch(
        self,
        upstream: Upstream,
        repository: Repository,
        reference: Reference,
        step: Callable[[int], None] = lambda _: None,
    ) -> Held:
        """Fetch a manifest and keep it.

        Raises:
            RegistryError: the upstream has none, or failed.
        """
        purges, began = self._store.purges, self._store.purges.count
        fetched = await self._source.fetch(upstream, repository, reference, step)
        if any(purges.took(repository, each, began) for each in (reference, fetched.digest)):
            return Held(fetched.digest, fetched.media_type, fetched.body, was_fetched=True, is_kept=False)
        return self.keep(repository, fetched)

    def keep(self, repository: Repository, fetched: FetchedManifest) -> Held:
        """Keep a manifest that was fetched."""
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
