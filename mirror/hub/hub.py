"""The hub of a replica: the one place that decides."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence

from mirror.channel import BlobFound, Body, Listing, ManifestFound, Progress, Stream
from mirror.config import Upstream, Upstreams
from mirror.hub.blobs import Blobs
from mirror.hub.listings import Listings
from mirror.hub.manifests import Manifests
from mirror.hub.tags import Tags
from mirror.hub.visibility import Visibility
from mirror.observe.metrics import Sample
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.oci.reference import Reference, Repository
from mirror.source.upstream import Listed
from mirror.store import Store


class LocalHub:
    """Implements the channel's Protocol; a door in the same process calls it as it is."""

    def __init__(
        self,
        upstreams: Upstreams,
        store: Store,
        manifests: Manifests,
        tags: Tags,
        blobs: Blobs,
        listings: Listings,
        visibility: Visibility,
    ) -> None:
        self._upstreams = upstreams
        self._store = store
        self._manifests = manifests
        self._tags = tags
        self._blobs = blobs
        self._listings = listings
        self._visibility = visibility
        self._reports: dict[str, Sequence[Sample]] = {}

    async def close(self) -> None:
        """End what is under way; fills can be resumed."""
        await self._tags.close()
        await self._manifests.close()
        await self._blobs.close()
        await self._listings.close()
        await self._visibility.close()

    async def manifest(self, repository: Repository, reference: Reference) -> ManifestFound:
        """See `channel.Hub`."""
        upstream = self._upstream(repository)
        await self._settle(upstream, repository, reference)

        def find() -> Awaitable[ManifestFound]:
            if isinstance(reference, Digest):
                return self._manifests.find(upstream, repository, reference)
            return self._tags.find(upstream, repository, reference)

        return await self._visibility.manifest(upstream, repository, reference, find)

    async def blob(self, repository: Repository, digest: Digest) -> Body:
        """See `channel.Hub`."""
        upstream = self._upstream(repository)
        await self._settle(upstream, repository, digest)
        await self._visibility.blob(upstream, repository, digest)
        return await self._blobs.locate(upstream, repository, digest)

    async def blob_size(self, repository: Repository, digest: Digest) -> BlobFound:
        """See `channel.Hub`."""
        upstream = self._upstream(repository)
        await self._settle(upstream, repository, digest)
        await self._visibility.blob(upstream, repository, digest)
        return await self._blobs.size(upstream, repository, digest)

    async def progress(self, fill: int, offset: int) -> Progress:
        """See `channel.Hub`."""
        return await self._blobs.progress(fill, offset)

    async def stream(self, repository: Repository, digest: Digest, start: int) -> Stream:
        """See `channel.Hub`."""
        upstream = self._upstream(repository)
        await self._settle(upstream, repository, digest)
        await self._visibility.blob(upstream, repository, digest)
        return await self._blobs.stream(upstream, repository, digest, start)

    async def tags(self, repository: Repository, query: str) -> Listing:
        """See `channel.Hub`."""
        return await self._listing(Listed(repository, None, query))

    async def referrers(self, repository: Repository, digest: Digest, query: str) -> Listing:
        """See `channel.Hub`."""
        return await self._listing(Listed(repository, digest, query))

    async def report(self, door: str, samples: Sequence[Sample], used: Mapping[Digest, float]) -> None:
        """See `channel.Hub`."""
        self._reports[door] = samples
        self._store.shelf.add_used(used)

    def reported(self) -> Iterable[Sequence[Sample]]:
        """Return what the doors of other processes counted; what a door counted before it died stays counted."""
        return list(self._reports.values())

    async def _listing(self, listed: Listed) -> Listing:
        upstream = self._upstream(listed.repository)
        await self._visibility.listing(upstream, listed.repository)
        return await self._listings.find(upstream, listed)

    async def _settle(self, upstream: Upstream, repository: Repository, reference: Reference) -> None:
        """Before the upstream is asked for what may be held: have the index know it, if that is not whole just now."""
        if self._store.is_settled:
            return
        shelf = self._store.shelf
        if isinstance(reference, Digest):
            digest: Digest | None = reference
        else:
            state = shelf.tag(repository, reference)
            digest = None if state is None else state.digest
        is_known = digest is not None and shelf.link(repository, digest) is not None
        if not is_known or (upstream.has_credentials and shelf.verdict(repository) is None):
            await self._store.settle(repository)

    def _upstream(self, repository: Repository) -> Upstream:
        upstream = self._upstreams.lookup(repository.upstream)
        if upstream is None:
            raise RegistryError(ErrorCode.NAME_UNKNOWN, f"{repository.upstream} is not a configured upstream")
        return upstream
