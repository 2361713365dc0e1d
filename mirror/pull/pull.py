"""A pull, as the door sees it: from the shelf if it can be, else through the hub."""

from __future__ import annotations

import os
import time

from mirror.channel import BlobFound, Filling, Hub, Listing, ManifestFound, Whole
from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Reference, Repository
from mirror.pull.blob import BlobBody
from mirror.store import Shelf
from mirror.store.freshness import Freshness

_HIT = CacheStatus(Outcome.HIT)
_MOST_TRIES = 3


class Pull:
    """Manifests, blobs and listings for one door."""

    def __init__(self, shelf: Shelf, hub: Hub, freshness: Freshness) -> None:
        self._shelf = shelf
        self._hub = hub
        self._freshness = freshness

    async def manifest(self, repository: Repository, reference: Reference) -> ManifestFound:
        """Return a manifest.

        Raises:
            RegistryError: what the client is to be told.
        """
        found = self._held_manifest(repository, reference)
        if found is None:
            found = await self._hub.manifest(repository, reference)
        self._shelf.touch(found.digest)
        return found

    async def blob(self, repository: Repository, digest: Digest) -> BlobBody:
        """Return a blob, to be read and closed.

        Raises:
            RegistryError: what the client is to be told.
        """
        body = BlobBody(self._hub, self._shelf.content, repository, digest, _HIT)
        link = self._shelf.link(repository, digest)
        descriptor = self._shelf.content.open(digest) if link is not None and link.is_blob else None
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
        link = self._shelf.link(repository, digest)
        size = self._shelf.content.size(digest) if link is not None and link.is_blob else None
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
        """Return the names of all repositories that something is held of, sorted. Blocks."""
        return self._shelf.repositories()

    def _held_manifest(self, repository: Repository, reference: Reference) -> ManifestFound | None:
        if isinstance(reference, Digest):
            link = self._shelf.link(repository, reference)
            body = None if link is None or link.media_type is None else self._shelf.manifest(reference)
            if link is None or link.media_type is None or body is None or reference in self._shelf.unpublished:
                return None
            return ManifestFound(reference, link.media_type, body, _HIT)
        state = self._shelf.tag(repository, reference)
        now = time.time()
        if state is None or not self._freshness.is_fresh(repository, reference, state, now):
            return None
        body = self._shelf.manifest(state.digest)
        if body is None or state.digest in self._shelf.unpublished:
            return None
        status = self._freshness.status(repository, reference, state, Outcome.HIT, now)
        return ManifestFound(state.digest, state.media_type, body, status)
