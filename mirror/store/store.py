"""The store as its one owner, the hub, uses it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import msgspec
import structlog

from mirror import config
from mirror.oci.digest import Digest
from mirror.oci.manifest import is_manifest
from mirror.oci.reference import Repository, Tag
from mirror.store.holds import Holds
from mirror.store.journal import Journal
from mirror.store.ownership import Ownership, StoreError
from mirror.store.partial import Leftover, Partial
from mirror.store.partials import Partials
from mirror.store.purges import Fallen, Purges
from mirror.store.records import (
    Carried,
    Entry,
    Judged,
    Link,
    Linked,
    Ordered,
    TagDropped,
    TagSet,
    TagState,
    Verdict,
    link_key,
    tag_key,
    verdict_key,
)
from mirror.store.recovery import Recovery, rows_of
from mirror.store.room import Room
from mirror.store.shelf import GONE, Record, Shelf
from mirror.store.usage import Usage
from mirror.store.writer import Change, Writer

_MOST_UNPUBLISHED = 10_000
# Verdicts that one run writes down about repositories of which nothing is held.
_MOST_STRANGERS = 1000
_LARGEST_MANIFEST = 4 * 2**20


class _Found(NamedTuple):
    """What lies in the store: bytes in all, and objects by their kind."""

    size: int
    objects: Mapping[str, int]


class _Removed(NamedTuple):
    """What went with a content file: bytes, and an object of a kind."""

    size: int
    kind: str


class Store:
    """Content, partial files, room, and what must survive the index; changed by one event loop."""

    def __init__(self, settings: config.StoreSettings, upstreams: config.Upstreams, disk: Executor) -> None:
        """Describe the store at `settings.path`, of content of `upstreams`; `disk` is the pool in which it blocks."""
        self.path = settings.path
        self.shelf = Shelf(settings.path, remembers_tags=True)
        self.content = self.shelf.content
        self.disk = disk
        self.room: Room
        self.objects = {"manifest": 0, "blob": 0}
        self.naming: set[Digest] = set()
        self.purges = Purges()
        self.orders: dict[str, Carried] = {}
        self.holds = Holds(lambda digest: self.content.size(digest) is not None)
        self.is_open = False
        self.on_change: Callable[[Mapping[str, Record | None]], None] = lambda _: None
        self.on_manifest: Callable[[Digest, int], None] = lambda _digest, _size: None
        self._settings = settings
        self._upstreams = upstreams
        self._log = structlog.get_logger("layover.store")
        self._publishing: dict[Digest, asyncio.Task[None]] = {}
        self.usage = Usage(self.shelf, disk)
        self.holds = Holds(lambda digest: self.content.size(digest) is not None)
        self._ownership = Ownership(self.path)
        self._partials = Partials(self.path / "partial")
        self._strangers = 0
        self._is_closing = False
        # One at a time: the index that is built meanwhile needs the processor too.
        self._learning = asyncio.Lock()
        self._surveys: list[asyncio.Task[None]] = []
        self._settling: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._found: Iterator[tuple[str, int]]
        self._journal: Journal
        self._recovery: Recovery
        self._writer: Writer

    def open(self) -> None:
        """Take the store over, whatever state it is in. Blocks.

        Raises:
            StoreError: another process owns it, a newer release made it, or the folder cannot be used.
        """
        try:
            self._ownership.take()
            self._recover()
        except OSError as error:
            raise StoreError(f"store.path {self.path}: cannot be used: {error.strerror or error}") from None

    def _recover(self) -> None:
        self._journal = Journal(self.path / "journal")
        self._recovery = Recovery(self._journal, self.shelf, self.path)
        self._recovery.open()
        self.orders = self.shelf.orders()
        if self.shelf.is_damaged:
            self.orders = self._journal.orders()
        used = self._partials.recover(self.content)
        self._found = self.content.scan()
        settings = self._settings
        self.room = Room(self.path, settings.size, settings.min_free, used, settings.low_mark)
        self._writer = Writer(self._journal, self.shelf, self._recovery)
        self.shelf.on_damage = self._writer.wake
        self.is_open = True

    def start(self) -> None:
        """Start the threads and tasks that write in the background."""
        self._writer.start()
        self.usage.start()
        self._surveys = [asyncio.create_task(self._check_index()), asyncio.create_task(self._count())]

    async def close(self) -> None:
        """Write what waits, and give the store up."""
        self._is_closing = True
        if self._publishing:
            await asyncio.wait(self._publishing.values())
        await asyncio.gather(*self._surveys)
        await self.usage.close()
        await asyncio.get_running_loop().run_in_executor(self.disk, self._writer.close)
        self.shelf.close()
        self._journal.close()
        self._ownership.give_up()

    @property
    def is_settled(self) -> bool:
        """Whether what the shelf does not know is not held; else `settle` tells more of a repository."""
        return self._recovery.is_settled

    async def settle(self, repository: Repository) -> None:
        """Have the shelf know all that is held of a repository, while its index is checked or built anew."""
        key = (str(repository), self._recovery.built)
        if key not in self._settling:
            self._settling[key] = asyncio.create_task(self._learn(str(repository)))
        await asyncio.shield(self._settling[key])
        if self.is_settled:
            self._settling.clear()

    async def _learn(self, repository: str) -> None:
        """Show what journal and content say of a repository, where the shelf does not know better."""
        async with self._learning:
            if self.is_settled:
                return
            loop = asyncio.get_running_loop()
            try:
                found = await loop.run_in_executor(self.disk, self._recovery.rows_under, repository)
            except OSError as error:
                self._log.error("the journal cannot be read", error=str(error))
                return
        self._put((), {key: row for key, row in found.items() if self._is_news(key, row)}, None)

    def _is_news(self, key: str, row: Record | None) -> bool:
        if isinstance(row, TagState):
            return self.shelf.known(key, TagState) is None
        if isinstance(row, Verdict):
            return self.shelf.known(key, Verdict) is None
        return row is not None

    async def _check_index(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self.disk, self._recovery.check, lambda: self._is_closing)
        self._writer.wake()

    async def _count(self) -> None:
        """Count what lies in the store: that can take long where there is much."""
        found = await asyncio.get_running_loop().run_in_executor(self.disk, self._counted)
        for kind, count in found.objects.items():
            self.objects[kind] += count
        self.room.count(found.size + sum(self.content.uncounted.values()))

    def _counted(self) -> _Found:
        linked = set()
        for entry in self._journal.replay(None):
            if self._is_closing:
                break
            if isinstance(entry, Linked) and entry.link.media_type:
                linked.add(entry.digest.hex)
        size, objects = 0, {"manifest": 0, "blob": 0}
        for name, taken in self._found:
            if self._is_closing:
                break
            size += taken
            objects["manifest" if name in linked else "blob"] += 1
        return _Found(size, objects)

    def set_tag(self, repository: Repository, tag: Tag, state: TagState) -> bool:
        """Remember where a tag points; False, and nothing changed, if what is known is of a later check or purge."""
        known = self.shelf.tag(repository, tag)
        if known is not None and known.checked_at > state.checked_at:
            return False
        if state.checked_at < self.purges.last(repository, tag):
            return False
        entry = TagSet(str(repository), tag, state)
        moved = known is None or known.digest != state.digest or known.media_type != state.media_type
        self._change(repository, entry, None, survives=moved)
        return True

    def drop_tag(self, repository: Repository, tag: Tag) -> None:
        """Forget a tag."""
        self._change(repository, TagDropped(str(repository), tag), None, survives=True)

    async def purge(self, fallen: Fallen) -> Mapping[Digest, int]:
        """Forget tags and links, and the content that nothing links to; return the bytes by digest that went.

        Raises:
            OSError: the disk is full or broken.
        """
        await self._expect_orders()
        async with self._learning:
            self._hide(fallen)
            writing = [self._publishing[each] for each in fallen.content if each in self._publishing]
            if writing:
                await asyncio.wait(writing)
            loop = asyncio.get_running_loop()
            left = await loop.run_in_executor(self.disk, self._partials.clear_of, frozenset(fallen.content))
            self.room.free(sum(each.size for each in left))
            freed = await self.forget(fallen.content)
            # Whoever is killed before this finds all of it again, and with it the content that is left.
            entries = tuple(fallen.where(self._is_hidden).entries())
            self._put(entries, _gone(entries), None)
        return freed

    def _hide(self, fallen: Fallen) -> None:
        """Show nothing more of what falls, though it is not written that it has gone."""
        rows = _gone(fallen.entries())
        self.shelf.remember(rows)
        self.on_change(rows)

    def _is_hidden(self, repository: str, reference: Tag | Digest) -> bool:
        """Say whether a tag or link that fell has not come anew since."""
        if isinstance(reference, Digest):
            return self.shelf.known(link_key(repository, reference), Link) is None
        return self.shelf.known(tag_key(repository, reference), TagState) is None

    async def remember_order(self, key: str, order: Carried | None) -> None:
        """Remember the last order of a kind about something; None if it needs no remembering any more.

        Raises:
            OSError: the disk is full or broken.
        """
        await self._expect_orders()
        self.orders.pop(key, None)
        if order is not None:
            self.orders[key] = order
        self._put((Ordered(key, order),), {key: order}, None)

    async def _expect_orders(self) -> None:
        """Have releases that know no orders refuse the store, before there is anything that they would lose."""
        if not self._ownership.knows_orders:
            await asyncio.get_running_loop().run_in_executor(self.disk, self._ownership.expect_orders)

    @property
    def is_built(self) -> bool:
        """Whether the index has all that journal and content say, as far as is known."""
        return self._recovery.is_built

    def link(self, repository: Repository, digest: Digest, link: Link, body: bytes | None = None) -> None:
        """Let a digest be served under a repository; with a manifest's `body`, what it refers to as well."""
        known = self.shelf.link(repository, digest)
        upstream = self._upstreams.lookup(repository.upstream)
        is_guarded = upstream is not None and upstream.has_credentials
        link = msgspec.structs.replace(link, is_guarded=is_guarded).merged(known)
        if link != known or body is not None:
            verdict = self.shelf.verdict(repository)
            is_shared = not link.is_guarded if verdict is None else not verdict.is_private
            self._change(repository, Linked(str(repository), digest, link, is_shared), body, survives=True)

    def judge(self, repository: Repository, verdict: Verdict) -> None:
        """Remember whether a repository is private."""
        known = self.shelf.verdict(repository)
        if verdict.is_private and known is None and self.shelf.any_link(repository) is None:
            # Anybody can ask for names that nobody has, and some upstreams call them private.
            self._strangers += 1
            if self._strangers > _MOST_STRANGERS:
                self.shelf.note(verdict_key(str(repository)), verdict)
                return
        has_changed = known is None or known.is_private != verdict.is_private
        self._change(repository, Judged(str(repository), verdict), None, survives=has_changed)

    def keep_manifest(self, repository: Repository, digest: Digest, media_type: str, body: bytes) -> None:
        """Keep a verified manifest and link it: in memory at once, on disk soon, unless the disk is full."""
        self.link(repository, digest, Link(media_type, False, len(body)), body)
        self.publish_manifest(digest, body)

    def publish_manifest(self, digest: Digest, body: bytes) -> None:
        """Have a manifest on disk soon, if it is not; if the disk is full, once more when it is asked for again."""
        self.shelf.keep_hot(digest, body)
        if digest not in self._publishing and self.content.size(digest) is None:
            task = self._publishing[digest] = asyncio.create_task(self._publish_manifest(digest, body))
            task.add_done_callback(lambda _: self._publishing.pop(digest, None))

    def partial(self, digest: Digest, origin: str) -> Partial:
        """Return the partial file of `digest` as it comes from `origin`. Blocks.

        Raises:
            OSError: the disk is full or broken.
        """
        return self._partials.open(digest, origin)

    def published(self, digest: Digest, counted: int) -> None:
        """Take note that a fill brought a blob in, for which `counted` bytes were spent: from now on its blocks count.

        Those of a file that is just written may be more.
        """
        self.objects["blob"] += 1
        self._count_blocks(digest, counted)

    async def forget(self, digests: Collection[Digest]) -> Mapping[Digest, int]:
        """Delete content, and return how many bytes went with each; its links stay, so that it can be had again.

        Who reads it goes on reading. What is just on its way in, or not held, is left out.
        """
        # Cancelled or not, what went is counted.
        return await asyncio.shield(asyncio.ensure_future(self._forget(digests)))

    async def _forget(self, digests: Collection[Digest]) -> Mapping[Digest, int]:
        going = [each for each in digests if each not in self._publishing and each not in self.naming]
        loop = asyncio.get_running_loop()
        removed = await loop.run_in_executor(self.disk, lambda: [self._removed(digest) for digest in going])
        freed: dict[Digest, int] = {}
        rows: dict[str, None] = {}
        for digest, gone in zip(going, removed, strict=True):
            if gone is not None:
                freed[digest] = gone.size
                self.objects[gone.kind] -= digest not in self.content.uncounted
                if gone.kind == "manifest":
                    self.shelf.drop_hot(digest)
                    rows[f"{GONE}{digest}"] = None
        if rows:
            self.on_change(rows)
        self.room.free(sum(freed.values()))
        return freed

    async def forget_leftovers(self, amount: int, unchanged_for: float) -> Sequence[Leftover]:
        """Delete partial files, oldest first, that no fill has had for so many seconds; return which went.

        It ends once at least `amount` bytes went.
        """
        before = time.time() - unchanged_for
        freed = await asyncio.get_running_loop().run_in_executor(self.disk, self._partials.clear, amount, before)
        self.room.free(sum(each.size for each in freed))
        return freed

    def _removed(self, digest: Digest) -> _Removed | None:
        try:
            kind = self._kind(digest)
            taken = self.content.remove(digest)
        except OSError as error:
            self._log.error("content cannot be deleted", digest=digest, error=str(error))
            return None
        return None if taken is None else _Removed(taken, kind)

    def _kind(self, digest: Digest) -> str:
        """Return what content is counted as, as far as it tells itself."""
        if (self.content.size(digest) or 0) > _LARGEST_MANIFEST:
            return "blob"
        body = self.content.read(digest) or b""
        return "manifest" if b'"schemaVersion"' in body and is_manifest(body) else "blob"

    def _count_blocks(self, digest: Digest, counted: int) -> None:
        taken = self.content.taken(digest)
        if taken is not None:
            self.room.used += taken - counted

    def _change(self, repository: Repository, entry: Entry, body: bytes | None, *, survives: bool) -> None:
        holds = str(repository) if isinstance(entry, TagSet | Linked) else None
        self._put((entry,) if survives else (), dict(rows_of(entry, body)), holds)

    def _put(self, entries: tuple[Entry, ...], told: Mapping[str, Record | None], holds: str | None) -> None:
        rows = {}
        for key, row in told.items():
            known = self.shelf.known(key, Link) if isinstance(row, Link) else None
            merged = row.merged(known) if isinstance(row, Link) else row
            if merged != known or merged is None:
                rows[key] = merged
        if rows:
            self._writer.put(Change(entries, rows, holds))
            self.on_change(rows)

    async def _publish_manifest(self, digest: Digest, body: bytes) -> None:
        self.shelf.unpublished.add(digest)
        while len(self.shelf.unpublished) > _MOST_UNPUBLISHED:
            self.shelf.unpublished.pop()
        await self.room.ready(len(body))
        if not self.room.claim(len(body)):
            return
        fresh = self.path / "partial" / f"{uuid.uuid4().hex}.manifest"

        def publish() -> None:
            fresh.write_bytes(body)
            self.content.publish(fresh, digest)

        try:
            await asyncio.get_running_loop().run_in_executor(self.disk, publish)
        except OSError as error:
            self.room.unclaim(len(body))
            self._log.error("a manifest cannot be stored", digest=digest, error=str(error))
            await asyncio.get_running_loop().run_in_executor(self.disk, lambda: fresh.unlink(missing_ok=True))
            return
        self.room.spend(len(body))
        self.objects["manifest"] += 1
        self._count_blocks(digest, len(body))
        self.shelf.unpublished.discard(digest)
        self.on_manifest(digest, len(body))


def _gone(entries: Iterable[Entry]) -> dict[str, Record | None]:
    """Return the rows of what entries say has gone."""
    return {key: row for entry in entries for key, row in rows_of(entry, None)}
