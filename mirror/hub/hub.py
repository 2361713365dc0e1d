"""The hub of a replica: the one place that decides."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from mirror.channel import (
    BlobFound,
    Body,
    Changes,
    Filling,
    Listing,
    ManifestFound,
    Membership,
    Progress,
    Stream,
    Whole,
)
from mirror.config import Upstream, Upstreams
from mirror.fleet import within_allowance
from mirror.hub.blobs import Blobs
from mirror.hub.changes import ChangeLog
from mirror.hub.listings import Listings
from mirror.hub.manifests import Manifests
from mirror.hub.prefetch import Prefetch
from mirror.hub.pulls import Pulls
from mirror.hub.supplier import Supplier
from mirror.hub.tags import Tags
from mirror.hub.visibility import Visibility
from mirror.observe.metrics import Sample
from mirror.observe.tally import Tally
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.oci.reference import Reference, Repository
from mirror.oci.use import Use
from mirror.source.upstream import Listed
from mirror.store import Store

# A door that has not reported for so long has probably ended.
_REMEMBERED_SECONDS = 5.0
_PATIENCE_SECONDS = 0.3


class Services(NamedTuple):
    """What a hub is made of, each with its own kind of question."""

    manifests: Manifests
    tags: Tags
    blobs: Blobs
    listings: Listings
    visibility: Visibility
    prefetch: Prefetch
    supplier: Supplier


class LocalHub:
    """Implements the channel's Protocol; a door in the same process calls it as it is."""

    def __init__(
        self,
        upstreams: Upstreams,
        store: Store,
        services: Services,
        membership: Callable[[], Membership | None],
    ) -> None:
        """Put the hub together; `membership` tells what the replica is in its fleet, None without one."""
        self._upstreams = upstreams
        self._store = store
        self._manifests = services.manifests
        self._tags = services.tags
        self._blobs = services.blobs
        self._listings = services.listings
        self._visibility = services.visibility
        self._prefetch = services.prefetch
        self._supplier = services.supplier
        self.tally = Tally()
        self.pulls = Pulls(store.shelf)
        self._reported: dict[str, float] = {}
        self._report_came = asyncio.Event()
        self._changes = ChangeLog(store.shelf, membership)
        store.on_change = self._changes.add

    async def wind_down(self) -> None:
        """End what nobody waits for, and start no more of it: the replica is about to end."""
        await self._prefetch.close()

    async def close(self) -> None:
        """End what is under way; fills can be resumed."""
        await self._prefetch.close()
        await self._tags.close()
        await self._manifests.close()
        await self._blobs.close()
        await self._listings.close()
        await self._visibility.close()

    @within_allowance
    async def manifest(self, repository: Repository, reference: Reference) -> ManifestFound:
        """See `channel.Hub`."""
        upstream = self._upstream(repository)
        await self._settle(upstream, repository, reference)

        def find() -> Awaitable[ManifestFound]:
            if isinstance(reference, Digest):
                return self._manifests.find(upstream, repository, reference)
            return self._tags.find(upstream, repository, reference)

        before = self.pulls.before(repository, reference)
        try:
            found = await self._visibility.manifest(upstream, repository, reference, find)
        except RegistryError as error:
            self.pulls.failed(repository, reference, error)
            raise
        self.pulls.found(repository, reference, before, found)
        return found

    async def pulled(self, repository: Repository, digest: Digest) -> None:
        """See `channel.Hub`."""
        self._prefetch.pulled(self._upstream(repository), repository, digest)

    @within_allowance
    async def blob(self, repository: Repository, digest: Digest) -> Body:
        """See `channel.Hub`."""
        upstream = self._upstream(repository)
        await self._settle(upstream, repository, digest)
        await self._visibility.blob(upstream, repository, digest)
        before = self.pulls.before(repository, digest)
        try:
            body = await self._blobs.locate(upstream, repository, digest)
        except RegistryError as error:
            self.pulls.failed(repository, digest, error)
            raise
        self.pulls.fetched(repository, digest, before, body.status.outcome)
        return body

    @within_allowance
    async def blob_size(self, repository: Repository, digest: Digest) -> BlobFound:
        """See `channel.Hub`."""
        upstream = self._upstream(repository)
        await self._settle(upstream, repository, digest)
        await self._visibility.blob(upstream, repository, digest)
        return await self._blobs.size(upstream, repository, digest)

    async def progress(self, fill: int, offset: int) -> Progress:
        """See `channel.Hub`."""
        return await self._blobs.progress(fill, offset)

    @within_allowance
    async def stream(self, repository: Repository, digest: Digest, start: int) -> Stream:
        """See `channel.Hub`."""
        upstream = self._upstream(repository)
        await self._settle(upstream, repository, digest)
        await self._visibility.blob(upstream, repository, digest)
        return await self._blobs.stream(upstream, repository, digest, start)

    @within_allowance
    async def tags(self, repository: Repository, query: str) -> Listing:
        """See `channel.Hub`."""
        return await self._listing(Listed(repository, None, query))

    @within_allowance
    async def referrers(self, repository: Repository, digest: Digest, query: str) -> Listing:
        """See `channel.Hub`."""
        return await self._listing(Listed(repository, digest, query))

    async def take(self, repository: Repository, digest: Digest, is_manifest: bool) -> None:
        """Bring in a manifest or a blob that another replica offers.

        Raises:
            RegistryError: it cannot be had.
        """
        upstream = self._upstream(repository)
        if is_manifest:
            await self._manifests.find(upstream, repository, digest)
        else:
            await self._blobs.bring(upstream, repository, digest)

    async def sibling_blob(self, asker: str, followers: Sequence[str], digest: Digest) -> Whole | Filling | None:
        """See `channel.Hub`."""
        return await self._supplier.blob(asker, followers, digest)

    async def sibling_manifest(self, repository: Repository, digest: Digest) -> ManifestFound | None:
        """See `channel.Hub`."""
        return self._supplier.manifest(repository, digest)

    async def sibling_has(self, digest: Digest, seconds: float) -> bool:
        """See `channel.Hub`."""
        return await self._supplier.has(digest, seconds)

    async def report(self, door: str, samples: Sequence[Sample], used: Mapping[Digest, Use]) -> None:
        """See `channel.Hub`."""
        self.tally.put(door, samples)
        self._reported[door] = time.monotonic()
        came, self._report_came = self._report_came, asyncio.Event()
        came.set()
        self._store.usage.told(door, used)

    async def gather_reports(self) -> None:
        """Have the tally show what doors of other processes counted by now, if they tell it soon."""
        asked_at = time.monotonic()
        self._reported = {door: at for door, at in self._reported.items() if at > asked_at - _REMEMBERED_SECONDS}
        doors = list(self._reported)
        if doors:
            self._changes.inquire()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    while any(self._reported[door] < asked_at for door in doors):
                        await self._report_came.wait()

    async def changes(self, seen: str) -> Changes:
        """See `channel.Hub`."""
        return await self._changes.after(seen)

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
