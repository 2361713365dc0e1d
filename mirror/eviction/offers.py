"""Last copies that a full store offers to a replica with room, and what this one takes of others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from mirror.eviction.plan import Candidate
from mirror.fleet import Coordinator, Message, Sibling
from mirror.oci.digest import Digest
from mirror.oci.errors import LayoverError
from mirror.oci.reference import Repository, is_name
from mirror.store import Link, Store

_KIND = "offer"
_MOST_AT_ONCE = 16
# So long a taker may take, and so often it is looked whether it has.
_PATIENCE_SECONDS = 3.0
_LOOK_SECONDS = 0.2
# A taker keeps this share of its store free of what others offer.
_SPARE_ROOM = 0.2
_MOST_TAKEN_AT_ONCE = 4

Take = Callable[[Repository, Digest, bool], Awaitable[None]]


class _Offer(msgspec.Struct, frozen=True):
    """Content of a public repository, as its text, that the sender has, and that takes `size` bytes."""

    repository: str
    digest: str
    size: int
    is_manifest: bool


class Offers:
    """Offers and takes last copies."""

    def __init__(self, coordinator: Coordinator, store: Store, take: Take) -> None:
        """Offer what `store` has; `take` brings in a blob, or a manifest, that another one offers."""
        self._coordinator = coordinator
        self._store = store
        self._take = take
        self._taking: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("layover.eviction")
        coordinator.on_message(_KIND, self._offered)

    async def close(self) -> None:
        """End what is being taken."""
        for task in self._taking:
            task.cancel()
        if self._taking:
            await asyncio.wait(self._taking)

    async def offer(self, candidates: Sequence[Candidate]) -> None:
        """Offer the first of them to whoever has most room, and wait a little until somebody has taken them."""
        room = {each.identity: each.room for each in self._coordinator.siblings.values()}
        if max(room.values(), default=0) <= 0:
            return
        upstreams = await asyncio.get_running_loop().run_in_executor(self._store.disk, self._upstreams)
        offered = []
        for each in candidates[:_MOST_AT_ONCE]:
            taker = max(
                self._coordinator.siblings.values(), key=lambda sibling: room.get(sibling.identity, 0), default=None
            )
            link = self._public(each.digest, upstreams)
            if taker is None or link is None or room.get(taker.identity, 0) < each.size:
                continue
            if await self._send(taker, _Offer(link.origin, each.digest, each.size, link.media_type is not None)):
                room[taker.identity] -= each.size
                offered.append(each.digest)
        await self._taken(offered)

    async def _send(self, taker: Sibling, offer: _Offer) -> bool:
        return await self._coordinator.send(taker.identity, _KIND, msgspec.msgpack.encode(offer, enc_hook=str))

    async def _taken(self, digests: Sequence[Digest]) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while digests and time.monotonic() < deadline and not self._store.room.is_waited_for:
            await asyncio.sleep(_LOOK_SECONDS)
            copies = await self._coordinator.copies(digests)
            digests = [each for each in digests if not copies.get(each)]

    def _upstreams(self) -> set[str]:
        return {name.partition("/")[0] for name in self._store.shelf.repositories()}

    def _public(self, digest: Digest, upstreams: set[str]) -> Link | None:
        """Return a digest's link to a public repository; what is private is offered to nobody."""
        links = (self._store.shelf.link(upstream, digest) for upstream in upstreams)
        return next((link for link in links if link is not None and link.origin), None)

    def _offered(self, message: Message) -> None:
        try:
            offer = msgspec.msgpack.decode(message.body, type=_Offer)
            digest = Digest.parse(offer.digest)
        except (msgspec.DecodeError, ValueError):
            return
        upstream, _, name = offer.repository.partition("/")
        if not is_name(name):
            return
        room = self._store.room
        may_take = room.is_counted and room.fits(offer.size, _SPARE_ROOM) and len(self._taking) < _MOST_TAKEN_AT_ONCE
        if may_take and self._store.content.size(digest) is None:
            task = asyncio.create_task(self._bring(Repository(upstream, name), digest, offer.is_manifest))
            self._taking.add(task)
            task.add_done_callback(self._taking.discard)

    async def _bring(self, repository: Repository, digest: Digest, is_manifest: bool) -> None:
        try:
            if not await self._coordinator.holders(digest):
                return  # by now it would have to come from its upstream
            await self._take(repository, digest, is_manifest)
        except LayoverError as error:
            self._log.info("an offered copy could not be taken", digest=digest, error=str(error))
