"""A pull, as the door sees it: from the shelf if it can be, else through the hub."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

from mirror.channel import BlobFound, Filling, Hub, Listing, ManifestFound, Whole
from mirror.config import Settings
from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Reference, Repository
from mirror.pull.blob import BlobBody
from mirror.store import Link, Shelf, Verdict
from mirror.store.freshness import Freshness
from mirror.store.verdicts import Ruling, needs_verdict, refusal, rule

_HIT = CacheStatus(Outcome.HIT)
_MOST_TRIES = 3
# How often the hub hears of a manifest that is pulled on and on.
_TELL_SECONDS = 60.0
_MOST_TOLD = 6_000
# Of manifests in a second: who reads so many different ones leaves no line to bring anything in ahead.
_MOST_TOLD_A_SECOND = 100


class Pull:
    """Manifests, blobs and listings for one door."""

    def __init__(self, shelf: Shelf, hub: Hub, freshness: Freshness, settings: Settings) -> None:
        self._shelf = shelf
        self._hub = hub
        self._freshness = freshness
        self._upstreams = settings.upstreams
        self._tells = settings.prefetch.enabled
        self._told: dict[tuple[Repository, Digest], float] = {}
        self._told_lately = (0, 0)
        self._telling: set[asyncio.Task[None]] = set()

    async def manifest(self, repository: Repository, reference: Reference) -> ManifestFound:
        """Return a manifest.

        Raises:
            RegistryError: what the client is to be told.
        """
        found = self.held_manifest(repository, reference)
        if found is None:
            found = await self._hub.manifest(repository, reference)
            self._shelf.touch(found.digest)
        return found

    def held_manifest(self, repository: Repository, reference: Reference) -> ManifestFound | None:
        """Return a manifest that is held and fresh; None where the hub has to be asked.

        Raises:
            RegistryError: it may not be served.
        """
        found = self._look_up(repository, reference)
        if found is not None:
            self._shelf.touch(found.digest)
        return found

    def pulled(self, repository: Repository, digest: Digest) -> None:
        """Have the hub hear, now and then, that a client was given a manifest; nobody waits for that."""
        key, now = (repository, digest), time.monotonic()
        if not self._tells or now < self._told.get(key, 0.0):
            return
        second, count = self._told_lately
        if second != int(now):
            count = 0
        if count >= _MOST_TOLD_A_SECOND:
            return
        self._told_lately = (int(now), count + 1)
        self._told.pop(key, None)
        self._told[key] = now + _TELL_SECONDS
        if len(self._told) > _MOST_TOLD:
            del self._told[next(iter(self._told))]
        task = asyncio.create_task(self._tell(repository, digest))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, repository: Repository, digest: Digest) -> None:
        with contextlib.suppress(RegistryError):
            await self._hub.pulled(repository, digest)

    async def blob(self, repository: Repository, digest: Digest) -> BlobBody:
        """Return a blob, to be read and closed.

        Raises:
            RegistryError: what the client is to be told.
        """
        body = BlobBody(self._hub, self._shelf.content, repository, digest, _HIT)
        may_serve = self._may_serve_blob(repository, digest)
        descriptor = self._shelf.content.open(digest) if may_serve else None
        self._shelf.touch(digest)
        if descriptor is not None:
            body.hold(descriptor, os.fstat(descriptor).st_size)
            return body
        for _ in range(_MOST_TRIES):
            found = await self._hub.blob(repository, digest)
            body.status = found.status
            if isinstance(found, Whole):
                descriptor = self._shelf.content.open(digest)
                if descriptor is not None:
                    body.hold(descriptor, found.size)
                    return body
            elif isinstance(found, Filling):
                if body.follow(found):
                    return body
            else:
                body.pass_through(found.size)
                return body
        raise RegistryError(ErrorCode.UNAVAILABLE, f"{digest} vanished again and again", failure=Failure.RESET)

    async def blob_size(self, repository: Repository, digest: Digest) -> BlobFound:
        """Return a blob's size without pulling it.

        Raises:
            RegistryError: what the client is to be told.
        """
        size = self._shelf.content.size(digest) if self._may_serve_blob(repository, digest) else None
        return BlobFound(size, _HIT) if size is not None else await self._hub.blob_size(repository, digest)

    async def tags(self, repository: Repository, query: str) -> Listing:
        """Return a page of the upstream's tags.

        Raises:
            RegistryError: what the client is to be told.
        """
        return await self._hub.tags(repository, query)

    async def referrers(self, repository: Repository, digest: Digest, query: str) -> Listing:
        """Return a page of what refers to a digest.

        Raises:
            RegistryError: what the client is to be told.
        """
        return await self._hub.referrers(repository, digest, query)

    def repositories(self) -> list[str]:
        """Return the names of all repositories that something is held of that anybody may pull, sorted. Blocks."""
        verdicts = self._shelf.verdicts()
        return [name for name in self._shelf.repositories() if self._may_list(name, verdicts.get(name))]

    def _may_list(self, name: str, verdict: Verdict | None) -> bool:
        upstream = self._upstreams.lookup(name.partition("/")[0])
        if upstream is None or upstream.private == "anyone":
            return True
        if verdict is not None or not upstream.has_credentials:
            return verdict is None or not verdict.is_private
        found = self._shelf.any_link(name)
        return found is not None and not found[1].is_guarded

    def _look_up(self, repository: Repository, reference: Reference) -> ManifestFound | None:
        if isinstance(reference, Digest):
            link = self._shelf.link(repository, reference)
            body = None if link is None or link.media_type is None else self._shelf.manifest(reference)
            if link is None or link.media_type is None or body is None or reference in self._shelf.unpublished:
                return None
            if not self._may_serve(repository, link):
                return None
            return ManifestFound(reference, link.media_type, body, _HIT)
        state = self._shelf.tag(repository, reference)
        now = time.time()
        if state is None or not self._freshness.is_fresh(repository, reference, state, now):
            return None
        body = self._shelf.manifest(state.digest)
        if body is None or state.digest in self._shelf.unpublished:
            return None
        link = self._shelf.link(repository, state.digest)
        if link is None or not self._may_serve(repository, link):
            return None
        status = self._freshness.status(repository, reference, state, Outcome.HIT, now)
        return ManifestFound(state.digest, state.media_type, body, status)

    def _may_serve_blob(self, repository: Repository, digest: Digest) -> bool:
        link = self._shelf.link(repository, digest)
        return link is not None and link.is_blob and self._may_serve(repository, link)

    def _may_serve(self, repository: Repository, link: Link) -> bool:
        """Say whether what a link leads to may be served at once; if not, the hub may find out that it may.

        Raises:
            RegistryError: it may not be served.
        """
        upstream = self._upstreams.lookup(repository.upstream)
        if upstream is None:
            return False
        if not needs_verdict(upstream, link):
            return True
        ruling = rule(self._shelf.verdict(repository), time.time())
        if ruling is Ruling.REFUSE:
            raise refusal(upstream, repository)
        return ruling is Ruling.SERVE
