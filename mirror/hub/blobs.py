"""Blobs: where each can be read, and the one fill of each that is not held."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import structlog

from mirror.channel import BlobFound, Body, Filling, Progress, Unstored, Whole
from mirror.config import Upstream
from mirror.fill import Fill, Fleet, Passage, Precedence, Supply
from mirror.fill.fill import DigestMismatch
from mirror.fleet import allowance
from mirror.hub.flights import Flights
from mirror.hub.penalties import Penalties
from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.observe.metrics import HubMetrics
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.oci.reference import Repository
from mirror.source.upstream import UpstreamBlobs, UpstreamClient
from mirror.store import Link, Store

_MOST_ENDED = 512
_MOST_TRIES = 10
# Through so many siblings bytes come to a replica at most.
_LONGEST_CHAIN = 2
# How long a sibling waits at a time to hear that a source has what it wants.
_CONFIRM_SECONDS = 0.5
# A hub that restarted must not answer for a fill of the one before it.
_NUMBER_BITS = 48


class Blobs:
    """Answers for blobs."""

    def __init__(
        self, client: UpstreamClient, store: Store, hashing: Executor, metrics: HubMetrics, fleet: Fleet
    ) -> None:
        self._client = client
        self._store = store
        self._hashing = hashing
        self._metrics = metrics
        self._fleet = fleet
        self._numbers = itertools.count(secrets.randbits(_NUMBER_BITS))
        self._active: dict[tuple[str, Digest], Fill] = {}
        self._fills: dict[int, Fill] = {}
        self._tasks: dict[Fill, asyncio.Task[None]] = {}
        self._tellings: set[asyncio.Task[None]] = set()
        self._sizes: Flights[int | None] = Flights()
        self._penalties = Penalties()
        self.precedence = Precedence()
        self._log = structlog.get_logger("layover.hub")

    async def close(self) -> None:
        """End every fill so that it can be resumed, and every question."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._tellings:
            await asyncio.wait(self._tellings)
        await self._sizes.close()

    def forget(self, is_meant: Callable[[str, Digest], bool]) -> None:
        """Keep nothing of the fills that are under way of what was purged; their readers read on."""
        for fill in self._active.values():
            if is_meant(str(fill.repository), fill.digest):
                fill.forget()

    @property
    def load(self) -> int:
        """How many fills are under way."""
        return len(self._active)

    async def locate(self, upstream: Upstream, repository: Repository, digest: Digest) -> Body:
        """Return where a blob can be read, starting or joining its fill if it is not held.

        Raises:
            RegistryError: the upstream has none, or failed.
        """
        status: CacheStatus | None = None
        for _ in range(_MOST_TRIES):
            link = self._store.shelf.link(repository, digest)
            _refuse_manifest(link, digest)
            size = self._store.content.size(digest)
            fill = self._active.get((upstream.url, digest))
            is_foreign = size is not None or (fill is not None and fill.repository != repository)
            if link is None and status is None and is_foreign:
                status = await self._linked_by_upstream(upstream, repository, digest)
            elif size is not None:
                return Whole(size, status or CacheStatus(Outcome.HIT))
            elif fill is not None and (fill.error is not None or (fill.lost_room and not fill.is_read)):
                await fill.over()
                await asyncio.sleep(0)
            elif fill is None and (left := self._penalties.left(upstream, digest)) > 0:
                await asyncio.sleep(left)
            else:
                stand_in = status if status is not None and status.outcome is Outcome.STALE else None
                if (found := await self._filled(upstream, repository, digest, fill, stand_in)) is not None:
                    return found
        raise RegistryError(ErrorCode.UNAVAILABLE, f"{digest} cannot be had now", retry_after=1)

    async def _filled(
        self,
        upstream: Upstream,
        repository: Repository,
        digest: Digest,
        fill: Fill | None,
        stand_in: CacheStatus | None,
    ) -> Body | None:
        """Return where a fill can be read: the one under way, or a new one; None if another repository's failed.

        `stand_in` is how another's came about while the upstream cannot say that this repository has the blob too.
        """
        outcome = Outcome.MISS if fill is None else Outcome.JOINED
        if fill is None:
            fill = self._start(upstream, repository, digest)
        fill.read()
        try:
            await fill.confirmed()
        except RegistryError:
            if fill.repository != repository:
                return None
            raise
        if fill.size == 0:
            # Nothing could be withheld of an empty answer: it has to verify before its head goes out.
            await fill.over()
            if fill.error is not None:
                raise fill.error
        if fill.lost_room:
            return Unstored(fill.size, CacheStatus(Outcome.MISS, is_stored=False))
        is_confirmed = fill.was_opened and fill.repository == repository
        if not fill.was_opened and self._store.shelf.link(repository, digest) is None:
            status = await self._linked_by_upstream(upstream, repository, digest)
            stand_in = status if status.outcome is Outcome.STALE else None
        if stand_in is not None and not is_confirmed:
            return Filling(fill.number, fill.path, fill.size, stand_in)
        self._store.link(repository, digest, Link(None, True, None))
        return Filling(fill.number, fill.path, fill.size, CacheStatus(outcome))

    async def offer(self, asker: str, followers: Sequence[str], digest: Digest) -> Filling | None:
        """Return where a sibling can follow the fill of a digest that is under way; None if none is.

        Raises:
            RegistryError: no source has confirmed it yet (`retry_after` 0), or its bytes come from those who want them.
        """
        fill = next((fill for (_, each), fill in self._active.items() if each == digest), None)
        if fill is None or fill.error is not None:
            return None
        _refuse_circle(fill, asker, followers)
        fill.read()
        try:
            async with asyncio.timeout(_CONFIRM_SECONDS):
                await fill.confirmed()
        except TimeoutError:
            raise RegistryError(ErrorCode.UNAVAILABLE, f"{digest} is on its way", retry_after=0) from None
        except RegistryError:
            return None
        if fill.lost_room:
            return None
        _refuse_circle(fill, asker, followers)
        fill.followers.update((asker, *followers))
        return Filling(fill.lent_number, fill.path, fill.size, CacheStatus(Outcome.JOINED), fill.chain)

    async def bring(self, upstream: Upstream, repository: Repository, digest: Digest) -> None:
        """Bring in a blob that nobody asked for yet, behind all that somebody did. It may end without being held.

        Cancelled, it ends the fill so that it can be resumed, unless somebody reads it by now.

        Raises:
            RegistryError: the upstream has none, or failed.
        """
        is_filling = (upstream.url, digest) in self._active
        if is_filling or self._store.content.size(digest) is not None or self._penalties.left(upstream, digest) > 0:
            return
        with allowance():
            fill = self._start(upstream, repository, digest)
        try:
            await fill.over()
        except asyncio.CancelledError:
            if not fill.is_read and fill in self._tasks:
                self._tasks[fill].cancel()
            raise
        if fill.error is not None:
            raise fill.error

    async def size(self, upstream: Upstream, repository: Repository, digest: Digest) -> BlobFound:
        """Return a blob's size: of what is held, from a manifest that is held, or from the upstream.

        Raises:
            RegistryError: the upstream has none, or failed.
        """
        link = self._store.shelf.link(repository, digest)
        _refuse_manifest(link, digest)
        held = self._store.content.size(digest)
        if link is not None and (held is not None or link.size is not None):
            return BlobFound(held if held is not None else link.size, CacheStatus(Outcome.HIT))
        if held is not None:
            return BlobFound(held, await self._linked_by_upstream(upstream, repository, digest))
        size, joined = await self._ask_size(upstream, repository, digest)
        return BlobFound(size, CacheStatus(Outcome.JOINED if joined else Outcome.MISS))

    async def progress(self, number: int, offset: int) -> Progress:
        """Wait until a fill may be read beyond `offset`, or has ended.

        Raises:
            RegistryError: the fill failed.
        """
        fill = self._fills.get(number)
        return Progress(offset, is_forgotten=True) if fill is None else await fill.progress(number, offset)

    async def stream(self, upstream: Upstream, repository: Repository, digest: Digest, start: int) -> Passage:
        """Return an open passage for one reader.

        Raises:
            RegistryError: the upstream has no such blob, or failed.
        """
        link = self._store.shelf.link(repository, digest)
        passage = Passage(
            digest,
            repository,
            Supply(self._fleet, UpstreamBlobs(self._client, upstream), digest, may_lead=False),
            None if link is None else link.size,
            start,
            self._hashing,
            self._metrics,
        )
        await passage.open()
        try:
            if not passage.was_opened and link is None:
                await self._linked_by_upstream(upstream, repository, digest)
            else:
                self._store.link(repository, digest, Link(None, True, None))
        except BaseException:
            await passage.close()
            raise
        return passage

    def _start(self, upstream: Upstream, repository: Repository, digest: Digest) -> Fill:
        link = self._store.shelf.link(repository, digest)
        supply = Supply(self._fleet, UpstreamBlobs(self._client, upstream), digest)
        fill = Fill(
            self._take_number,
            digest,
            repository,
            supply,
            None if link is None else link.size,
            self._store,
            self._hashing,
            self._metrics,
        )
        self._active[upstream.url, digest] = fill
        task = self._tasks[fill] = asyncio.create_task(fill.run(self.precedence))
        task.add_done_callback(lambda done: self._ended(upstream, fill, supply, done))
        return fill

    def _take_number(self, fill: Fill) -> int:
        number = next(self._numbers)
        self._fills[number] = fill
        return number

    def _ended(self, upstream: Upstream, fill: Fill, supply: Supply, task: asyncio.Task[None]) -> None:
        del self._tasks[fill]
        size = self._store.content.size(fill.digest)
        telling = asyncio.create_task(supply.end(size))
        self._tellings.add(telling)
        telling.add_done_callback(self._tellings.discard)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("a fill met a defect", digest=fill.digest, error=repr(task.exception()))
        if self._active.get((upstream.url, fill.digest)) is fill:
            del self._active[upstream.url, fill.digest]
        if isinstance(fill.error, DigestMismatch):
            self._client.distrust(upstream, fill.digest)
        if isinstance(fill.error, DigestMismatch) and not fill.error.was_resumed:
            self._penalties.punish(upstream, fill.digest)
        elif fill.is_verified:
            self._penalties.lift(upstream, fill.digest)
        active = set(map(id, self._active.values()))
        ended = [number for number, each in self._fills.items() if id(each) not in active]
        for number in ended[:-_MOST_ENDED]:
            del self._fills[number]

    async def _linked_by_upstream(self, upstream: Upstream, repository: Repository, digest: Digest) -> CacheStatus:
        """Ask the upstream whether the repository has a blob that is held; in an outage its being held must do."""
        try:
            await self._ask_size(upstream, repository, digest)
        except RegistryError as error:
            public = self._store.shelf.link(repository.upstream, digest)
            if error.failure is None or public is None or not public.is_blob:
                raise
            return CacheStatus(Outcome.STALE, ttl=-1, failure=error.failure)
        return CacheStatus(Outcome.HIT)

    async def _ask_size(self, upstream: Upstream, repository: Repository, digest: Digest) -> tuple[int | None, bool]:
        source = UpstreamBlobs(self._client, upstream)
        flight, joined = self._sizes.join((repository, digest), lambda: source.size(repository, digest))
        size = await flight
        # Sizes are remembered from manifests alone: what a HEAD says may be wrong, and would stay so.
        self._store.link(repository, digest, Link(None, True, None))
        return size, joined


def _refuse_manifest(link: Link | None, digest: Digest) -> None:
    """Clients that were given a manifest as a blob keep its wrong type for good."""
    if link is not None and not link.is_blob:
        raise RegistryError(ErrorCode.BLOB_UNKNOWN, f"{digest} is a manifest, not a blob")


def _refuse_circle(fill: Fill, asker: str, followers: Sequence[str]) -> None:
    """Bytes must not come back to whom they come from, nor go through many."""
    if len(fill.chain) >= _LONGEST_CHAIN or not {asker, *followers}.isdisjoint(fill.chain):
        text = f"{fill.digest} comes from other replicas itself; ask those"
        raise RegistryError(ErrorCode.UNAVAILABLE, text, retry_after=1)
