"""Prefetch: what a manifest refers to is brought in before clients ask for it, behind all that they did ask for."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import structlog

from mirror.config import PrefetchSettings, Upstream
from mirror.fill import SPARE_ROOM
from mirror.hub.blobs import Blobs
from mirror.hub.manifests import Manifests
from mirror.hub.platforms import PulledPlatforms, chosen
from mirror.hub.visibility import Visibility
from mirror.oci import media_types
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.manifest import PlatformManifest, children, platforms
from mirror.oci.platform import Platform
from mirror.oci.reference import Repository
from mirror.source.upstream import Level, UpstreamClient
from mirror.store import Store

_MOST_AT_ONCE = 4
_MOST_OF_AN_UPSTREAM = 2
# Of an upstream's connections at most this share: where there are fewer, all of them are for those who wait.
_SHARE_OF_CONNECTIONS = 4
_MOST_QUEUED = 500
# More blobs than this no image has.
_MOST_BLOBS = 250
# How many digests of a repository or an upstream are looked at to learn what was pulled before a restart.
_MOST_LOOKED_AT = 200
_INDEXES = frozenset({media_types.OCI_INDEX, media_types.DOCKER_LIST})


class _Wanted(NamedTuple):
    """A manifest, or a blob of `size` bytes. `is_pulled`: a client has it, and what an index lists may be wanted."""

    upstream: Upstream
    repository: Repository
    digest: Digest
    size: int | None = None
    is_pulled: bool = False


class Prefetch:
    """Brings in, a few at a time, what the manifests refer to that clients pull. Nobody waits for it or hears of it.

    It asks as a client of the hub would, so that nothing is served that otherwise were not. What fails, or may not
    start when its turn comes, is left to the clients.
    """

    def __init__(
        self,
        settings: PrefetchSettings,
        manifests: Manifests,
        blobs: Blobs,
        visibility: Visibility,
        store: Store,
        client: UpstreamClient,
    ) -> None:
        self._settings = settings
        self._manifests = manifests
        self._blobs = blobs
        self._visibility = visibility
        self._store = store
        self._client = client
        self._platforms = PulledPlatforms()
        self._queue: dict[tuple[Repository, Digest], _Wanted] = {}
        self._under_way: Counter[str] = Counter()
        self._workers: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._log = structlog.get_logger("layover.prefetch")

    async def close(self) -> None:
        """Start nothing more, and end what is under way so that it can be resumed, but for what is read by now."""
        self._is_closed = True
        self._queue.clear()
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        if workers:
            await asyncio.wait(workers)

    def forget(self, is_meant: Callable[[str, Digest], bool]) -> None:
        """Bring in no more of what was purged."""
        self._queue = {key: each for key, each in self._queue.items() if not is_meant(str(key[0]), key[1])}

    def pulled(self, upstream: Upstream, repository: Repository, digest: Digest) -> None:
        """Take note that a client was given a manifest; if it is new, have brought in what it refers to."""
        held = self._manifests.held(repository, digest)
        if not self._settings.enabled or held is None:
            return
        if held.media_type in _INDEXES:
            self._platforms.list(repository, platforms(held.body))
        else:
            self._platforms.pull(repository, digest, time.monotonic())
        if self._manifests.take_arrival(repository, digest):
            self._put([_Wanted(upstream, repository, digest, is_pulled=True)])

    def _put(self, wanted: Iterable[_Wanted]) -> None:
        for each in wanted:
            if _most(each.upstream):
                self._queue[each.repository, each.digest] = each
        while len(self._queue) > _MOST_QUEUED:
            del self._queue[next(iter(self._queue))]
        while not self._is_closed and len(self._workers) < min(_MOST_AT_ONCE, len(self._queue)):
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._ended)

    def _ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if not worker.cancelled() and worker.exception() is not None:
            self._log.error("prefetching met a defect", error=repr(worker.exception()))

    async def _work(self) -> None:
        """Bring in one thing after the other, whenever nobody waits for anything else."""
        while True:
            await self._blobs.precedence.clear()
            wanted = self._next()
            if wanted is None:
                return
            self._under_way[wanted.upstream.url] += 1
            try:
                await self._bring(wanted)
            except RegistryError as error:
                self._log.debug("could not be prefetched", digest=wanted.digest, error=error.message)
            finally:
                self._under_way[wanted.upstream.url] -= 1

    def _next(self) -> _Wanted | None:
        for key, wanted in self._queue.items():
            if self._under_way[wanted.upstream.url] < _most(wanted.upstream):
                return self._queue.pop(key)
        return None

    async def _bring(self, wanted: _Wanted) -> None:
        upstream, repository, digest, size, _ = wanted
        await self._store.room.ready(size or 0, SPARE_ROOM)
        if size is None:
            await self._bring_manifest(wanted)
        elif self._store.content.size(digest) is None and self._may(upstream, size):
            await self._visibility.blob(upstream, repository, digest)
            await self._blobs.bring(upstream, repository, digest)

    async def _bring_manifest(self, wanted: _Wanted) -> None:
        upstream, repository, digest, _, is_pulled = wanted
        if self._manifests.held(repository, digest) is None and not self._may(upstream, 0):
            return
        found = await self._visibility.manifest(
            upstream, repository, digest, lambda: self._manifests.find(upstream, repository, digest)
        )
        if found.media_type not in _INDEXES:
            blobs = children(found.body).blobs[:_MOST_BLOBS]
            known = [each for each in blobs if each.size is not None and self._store.content.size(each.digest) is None]
            self._put(_Wanted(upstream, repository, each.digest, each.size) for each in known)
        elif is_pulled:
            listed = platforms(found.body)
            pulled = chosen(listed, await self._wanted_platforms(repository, listed))
            self._put(_Wanted(upstream, repository, each) for each in pulled)

    def _may(self, upstream: Upstream, size: int) -> bool:
        """Say whether something of `size` bytes may be asked for now."""
        quotas = self._client.quotas
        is_short = quotas.level(upstream) is not Level.PLENTY or quotas.is_limited(upstream)
        is_well = not is_short and not self._client.is_left_alone(upstream)
        return is_well and self._store.room.fits(size, SPARE_ROOM)

    async def _wanted_platforms(
        self, repository: Repository, listed: Iterable[PlatformManifest]
    ) -> tuple[Platform, ...]:
        """Return the platforms that are configured, else those that are pulled, as far as anything tells."""
        if self._settings.platforms:
            return self._settings.platforms
        for each in listed:
            if each.platform.is_known and self._manifests.held(repository, each.digest) is not None:
                self._platforms.note(str(repository), each.platform, time.monotonic())
        loop = asyncio.get_running_loop()
        for place in (str(repository), repository.upstream):
            if not self._platforms.of(place, time.monotonic()):
                for platform in await loop.run_in_executor(self._store.disk, self._held_platforms, place):
                    self._platforms.note(place, platform, time.monotonic())
            if known := self._platforms.of(place, time.monotonic()):
                return known
        return ()

    def _held_platforms(self, place: str) -> set[Platform]:
        """Return the platforms of which an index of a repository or an upstream lists a manifest that is held. Blocks.

        After a restart that is what tells which ones were pulled.
        """
        found = set()
        for digest, link in self._store.shelf.links(place, _MOST_LOOKED_AT):
            body = self._store.content.read(digest) if link.media_type in _INDEXES else None
            held = () if body is None else platforms(body)
            found |= {each.platform for each in held if self._store.content.size(each.digest) is not None}
        return {each for each in found if each.is_known}


def _most(upstream: Upstream) -> int:
    """Return how many of an upstream's connections may be used ahead of anybody's asking."""
    return min(_MOST_OF_AN_UPSTREAM, upstream.max_connections // _SHARE_OF_CONNECTIONS)
