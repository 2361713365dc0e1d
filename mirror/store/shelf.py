"""The reading side of the store: what a door needs to answer from what is held."""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.oci.use import Use
from mirror.store.content import Content, sync
from mirror.store.index import DATABASE, Index, IndexReader
from mirror.store.recent import Recent
from mirror.store.records import (
    LINKS,
    ORDERS,
    VERDICTS,
    Carried,
    Link,
    Row,
    TagState,
    Verdict,
    decode_row,
    encode_row,
    link_key,
    links_prefix,
    revive,
    tag_key,
    verdict_key,
)

RECORDS = "records"
# What a change is called, for doors, that took the content of a digest away: no row of the index begins so.
GONE = "gone:"
REPOSITORIES = "repositories"
Record = Row
POSITION = "journal"
_ABSENT: Any = object()
_Kind = TypeVar("_Kind", TagState, Link, Verdict, Carried)
_RECENT_RECORDS = 20_000
_HOT_BYTES = 24 * 2**20
_MOST_UNWRITTEN = 20_000
# Above so many possible links reading every key costs less than looking each up.
_MOST_LOOK_UPS = 50_000
# What it costs to keep a manifest beside its bytes; most have few.
_ENTRY_BYTES = 500


class Shelf:
    """Content, links and tags as they stand, written to the index or not.

    The hub's own shelf is changed by `remember`. A door's in another process `follow`s the index and what the hub says
    that changed, and believes its memory only as long as it has heard from the hub.
    """

    def __init__(self, path: Path, *, remembers_tags: bool, index: str = "index") -> None:
        """Read the store under `path`; `remembers_tags` for ever only where every change passes through this shelf."""
        self.content = Content(path / "content")
        self._path = path / index
        self._current_until = math.inf if remembers_tags else -math.inf
        self._hides_index = False
        self._records: IndexReader | None = None
        self._repositories: IndexReader | None = None
        self._recent: Recent[str, Record] = Recent(_RECENT_RECORDS)
        self._hot: Recent[Digest, bytes] = Recent(_HOT_BYTES)
        self._unwritten: dict[str, Record | None] = {}
        self._lock = threading.Lock()
        self._touched: dict[Digest, Use] = {}
        self._used: dict[Digest, Use] = {}
        self.generation = 0
        self.unpublished: set[Digest] = set()
        self.is_damaged = False
        self.on_damage: Callable[[], None] = lambda: None

    def open(self, *, is_aside: bool = False) -> None:
        """Open the index for writing, making it if there is none; `is_aside` where a power loss may take it.

        Raises:
            sqlite3.Error: it is damaged, or the disk is full.
            OSError: the disk is full or broken.
        """
        self._records = Index(self._path / RECORDS, is_aside=is_aside)
        self._repositories = Index(self._path / REPOSITORIES, is_aside=is_aside)

    def expect_bulk(self, *, is_bulk: bool) -> None:
        """Take more memory while much is written to the index, or give it back. Blocks; the thread that writes.

        Raises:
            sqlite3.Error: the index is damaged.
        """
        if isinstance(self._records, Index):
            self._records.expect_bulk(is_bulk=is_bulk)

    @property
    def has_index(self) -> bool:
        """Whether there is an index, good or bad."""
        return all((self._path / name / DATABASE).exists() for name in (RECORDS, REPOSITORIES))

    def check_index(self, is_given_up: Callable[[], bool]) -> None:
        """Read all of the index, until `is_given_up`. Blocks; any thread.

        Raises:
            sqlite3.Error: it is damaged, or was given up.
        """
        for name in (REPOSITORIES, RECORDS):
            Index.check(self._path / name, is_given_up)

    def take_index(self, other: Shelf) -> None:
        """Put the index of `other` in the place of this one's, and open it. Blocks; one thread.

        Raises:
            sqlite3.Error: the disk is full.
            OSError: the disk is full or broken.
        """
        other.close()
        for name in (RECORDS, REPOSITORIES):
            sync(other._path / name / DATABASE)
        self.remove_index()
        other._path.replace(self._path)
        self.open()

    def readers(self) -> tuple[IndexReader, IndexReader] | None:
        """Open the index that the hub's process keeps; None while that is not complete. Blocks; any thread."""
        opened: list[IndexReader] = []
        try:
            opened = [IndexReader(self._path / RECORDS)]
            opened.append(IndexReader(self._path / REPOSITORIES))
            if opened[0].get(POSITION):
                return opened[0], opened[1]
        except sqlite3.Error:
            pass  # the hub is only just making it; until then it is asked for everything
        for each in opened:
            each.close()
        return None

    def follow(self, readers: tuple[IndexReader, IndexReader] | None) -> None:
        """Read from an index that `readers` opened, in the place of any other, which closes once no thread reads it."""
        self._records, self._repositories = readers or (None, None)

    @property
    def is_open(self) -> bool:
        """Whether there is an index to read from."""
        return self._records is not None

    def catch_up(self, rows: Mapping[str, bytes | None], *, is_settled: bool, until: float) -> bool:
        """Show rows that the hub's process changed; False if they have become too many: start over.

        `is_settled`: the index shows all of them by now. `until`, on the monotonic clock, nothing else has changed that
        matters.
        """
        self.forget(rows)
        told = {key: decode_row(key, row) for key, row in rows.items() if not key.startswith(GONE)}
        with self._lock:
            if is_settled:
                self._unwritten = {}
            else:
                self._unwritten.update(told)
        self._current_until = until
        return len(self._unwritten) <= _MOST_UNWRITTEN

    def start_over(self, *, hides_index: bool) -> None:
        """Forget every row; `hides_index` while it cannot be told what the index does not show yet."""
        self._recent = Recent(_RECENT_RECORDS)
        self._hot = Recent(_HOT_BYTES)
        self._unwritten = {}
        self._current_until = -math.inf
        self._hides_index = hides_index

    def forget(self, keys: Iterable[str]) -> None:
        """Forget what is remembered of rows that changed."""
        for key in keys:
            if key.startswith(GONE):
                self._hot.drop(Digest(key.removeprefix(GONE)))
            else:
                self._recent.drop(key)

    def close(self) -> None:
        """Close the index."""
        for index in (self._records, self._repositories):
            if index is not None:
                index.close()
        self._records = self._repositories = None

    def tag(self, repository: Repository | str, name: str) -> TagState | None:
        """Return what is known of a tag."""
        return self._record(tag_key(str(repository), name), TagState)

    def link(self, repository: Repository | str, digest: Digest) -> Link | None:
        """Return as what a digest may be served under a repository, or under any of an upstream given by its name.

        An upstream's is None for what is not known to be of a public repository.
        """
        link = self._record(link_key(str(repository), digest), Link)
        if link is None or isinstance(repository, Repository):
            return link
        verdict = self.verdict(link.origin)
        is_public = not link.is_guarded if verdict is None else not verdict.is_private
        return link if is_public else None

    def verdict(self, repository: Repository | str) -> Verdict | None:
        """Return whether a repository was found to be private when its upstream was last asked."""
        return self._record(verdict_key(str(repository)), Verdict)

    def verdicts(self) -> dict[str, Verdict]:
        """Return every verdict by its repository. Blocks; any thread."""
        found = {key.removeprefix(VERDICTS): self._stored(key, Verdict) for key in self._keys(VERDICTS)}
        return {name: verdict for name, verdict in found.items() if verdict is not None}

    def orders(self) -> dict[str, Carried]:
        """Return the orders that were carried out by their keys. Blocks; any thread."""
        found = {key: self._stored(key, Carried) for key in self._keys(ORDERS)}
        return {key: order for key, order in found.items() if order is not None}

    def tags(self, repository: Repository | str) -> dict[Tag, TagState]:
        """Return every tag that is held of a repository, and where it points. Blocks; any thread."""
        prefix = tag_key(str(repository), "")
        found = {Tag(key.removeprefix(prefix)): self._stored(key, TagState) for key in self._keys(prefix)}
        return {tag: state for tag, state in found.items() if state is not None}

    def any_tag(self, repository: Repository) -> Tag | None:
        """Return a tag that is held of a repository. Blocks."""
        prefix = tag_key(str(repository), "")
        key = next(iter(self._keys(prefix, 1)), None)
        return None if key is None else Tag(key.removeprefix(prefix))

    def any_link(self, repository: Repository | str) -> tuple[Digest, Link] | None:
        """Return a digest that may be served under a repository, and as what. Blocks; any thread."""
        return next(self.links(repository, 1), None)

    def links(self, repository: Repository | str, most: int = -1) -> Iterator[tuple[Digest, Link]]:
        """Yield the digests that may be served under a repository, and as what: all, or no more than about `most`.

        Blocks; any thread.
        """
        prefix = links_prefix(str(repository))
        for key in self._keys(prefix, most):
            link = self._stored(key, Link)
            if link is not None:
                yield Digest(key.removeprefix(prefix)), link

    def stored_link(self, repository: Repository | str, digest: Digest) -> Link | None:
        """Return as what a digest may be served under a repository. Blocks; any thread."""
        return self._stored(link_key(str(repository), digest), Link)

    def linking(self, digests: Collection[Digest]) -> Iterator[tuple[str, Digest]]:
        """Yield each repository with each of `digests` that may be served under it. Blocks; any thread."""
        names = self.repositories()
        if len(names) * len(digests) <= _MOST_LOOK_UPS:
            for digest in digests:
                yield from ((name, digest) for name in names if self.stored_link(name, digest))
            return
        for key in self._every_key(LINKS):
            name, _, text = key.removeprefix(LINKS).rpartition("@")
            if text in digests and "/" in name:
                yield name, Digest(text)

    def known(self, key: str, kind: type[_Kind]) -> _Kind | None:
        """Return the record under a row's key, written or not."""
        return self._record(key, kind)

    def manifest(self, digest: Digest) -> bytes | None:
        """Return the bytes of a held manifest."""
        body = self._hot.get(digest)
        if body is None:
            body = self.content.read(digest)
            if body is not None:
                self.keep_hot(digest, body)
        return body

    def hot(self, digest: Digest) -> bytes | None:
        """Return the bytes of a manifest that is in memory, perhaps nowhere else. Any thread."""
        return self._hot.get(digest)

    def keep_hot(self, digest: Digest, body: bytes) -> None:
        """Keep a manifest in memory, within a bound."""
        self._hot.put(digest, body, len(body) + _ENTRY_BYTES)

    def drop_hot(self, digest: Digest) -> None:
        """Have a manifest in memory no more."""
        self._hot.drop(digest)

    def touch(self, digest: Digest) -> None:
        """Note that `digest` was used now."""
        known = self._touched.get(digest)
        self._touched[digest] = Use(1 if known is None else known.times + 1, time.time())

    def last_use(self, digest: Digest) -> float | None:
        """Return when content was last used, in seconds since the epoch; None if it is not held. Blocks; any thread."""
        written, use = self.content.used_at(digest), self._used.get(digest)
        return written if written is None or use is None else max(written, use.last)

    def add_used(self, used: Mapping[Digest, Use]) -> None:
        """Note what another process used."""
        for digest, use in used.items():
            self._used[digest] = use.merged(self._used.get(digest))

    def take_used(self) -> Mapping[Digest, Use]:
        """Return how digests were used since the last call, those that are being read among them."""
        now = time.time()
        touched, self._touched = self._touched, {}
        reading = self.content.reading
        self.add_used(touched)
        self.add_used({digest: Use(0, now, is_open=True) for digest in reading})
        used, self._used = self._used, {}
        return used

    def repositories(self) -> list[str]:
        """Return the names of all repositories that something is held of, sorted. Blocks; any thread."""
        with self._lock:
            names = {key for key, record in self._unwritten.items() if record is not None}
        found = {key.removeprefix(LINKS).rpartition("@")[0] for key in names if key.startswith(LINKS)}
        written = set() if self._repositories is None else set(self._repositories.keys()) - found
        # Names stay in the index; what was purged since has no links.
        found.update(name for name in written if "/" in name and self._keys(links_prefix(name), 1))
        return sorted(name for name in found if "/" in name)

    def remember(self, rows: Mapping[str, Record | None]) -> None:
        """Show rows at once; None stands for a row that is gone. They wait to be written."""
        with self._lock:
            self._unwritten.update(rows)
        for key, record in rows.items():
            if record is None:
                self._recent.drop(key)
            else:
                self._recent.put(key, record)

    def note(self, key: str, record: Record) -> None:
        """Show a row that is never written, for as long as there is room in memory."""
        self._recent.put(key, record)

    def write(self, rows: Mapping[str, Record | None], marks: Mapping[str, str], repositories: set[str]) -> None:
        """Write rows to the index, and `marks` of how far it has come. Blocks; one thread.

        Raises:
            sqlite3.Error: nothing was written.
        """
        if self._records is None or self._repositories is None:
            self.open()
        assert isinstance(self._records, Index)
        assert isinstance(self._repositories, Index)
        if repositories:
            self._repositories.write(dict.fromkeys(repositories, b""))
        encoded = {key: encode_row(row) for key, row in rows.items()}
        self._records.write({**encoded, **{name: mark.encode() for name, mark in marks.items()}})
        self.drop_unwritten(rows)

    def mark(self, name: str) -> str:
        """Return how far the index has come; empty if it does not say.

        Raises:
            sqlite3.Error: the index is damaged.
        """
        value = self._records.get(name) if self._records is not None else None
        return (value or b"").decode(errors="replace")

    def written_links(self, keys: Iterable[str]) -> dict[str, Link]:
        """Return the links that are written under rows' keys, of those that are there. Blocks; any thread.

        Raises:
            sqlite3.Error: the index is damaged.
        """
        found = {} if self._records is None else self._records.get_all(keys)
        try:
            return {key: msgspec.msgpack.decode(value, type=Link, dec_hook=revive) for key, value in found.items()}
        except (msgspec.DecodeError, ValueError) as error:
            raise sqlite3.DatabaseError("a link in the index that is none") from error

    def drop_unwritten(self, rows: Mapping[str, Record | None]) -> None:
        """Give up rows that will never be written."""
        with self._lock:
            for key, row in rows.items():
                if self._unwritten.get(key) is row:
                    self._unwritten.pop(key, None)

    def unwritten(self) -> Mapping[str, Record | None]:
        """Return the rows that the index does not show yet."""
        with self._lock:
            return dict(self._unwritten)

    @property
    def has_unwritten(self) -> bool:
        """Whether there is any row that the index does not show yet."""
        return bool(self._unwritten)

    def remove_index(self) -> None:
        """Delete the index, to be built anew."""
        self.generation += 1
        self.close()
        Index.remove(self._path)

    def _record(self, key: str, kind: type[_Kind]) -> _Kind | None:
        is_current = time.monotonic() < self._current_until or kind is Link
        record = self._recent.get(key) if is_current else None
        if record is not None:
            return record if isinstance(record, kind) else None
        unwritten = self._unwritten.get(key, _ABSENT)
        if unwritten is not _ABSENT and (is_current or not isinstance(unwritten, TagState | Verdict)):
            return unwritten if isinstance(unwritten, kind) else None
        read = self._read(key, kind)
        if isinstance(unwritten, kind):
            return _later(unwritten, read)
        if read is not None and is_current:
            self._recent.put(key, read)
        return read

    def _stored(self, key: str, kind: type[_Kind]) -> _Kind | None:
        unwritten = self._unwritten.get(key, _ABSENT)
        if unwritten is _ABSENT:
            return self._read(key, kind)
        return unwritten if isinstance(unwritten, kind) else None

    def _keys(self, prefix: str, limit: int = -1) -> set[str]:
        """Return the keys of rows, written or not, that begin with `prefix`; `limit` bounds those that are written."""
        with self._lock:
            found = {key: row for key, row in self._unwritten.items() if key.startswith(prefix)}
        gone = {key for key, row in found.items() if row is None}
        written: list[str] = []
        try:
            if self._records is not None:
                written = self._records.keys_under(prefix, limit + len(gone) if limit >= 0 else limit)
        except sqlite3.Error:
            self.report_damage()
        return {*found, *written} - gone

    def _every_key(self, prefix: str) -> Iterator[str]:
        """Yield the keys of rows, written or not, that begin with `prefix`, without holding them in memory."""
        with self._lock:
            unwritten = {key: row is not None for key, row in self._unwritten.items() if key.startswith(prefix)}
        yield from (key for key, is_there in unwritten.items() if is_there)
        try:
            if self._records is not None:
                yield from (key for key in self._records.each_key_under(prefix) if key not in unwritten)
        except sqlite3.Error:
            self.report_damage()

    def _read(self, key: str, kind: type[_Kind]) -> _Kind | None:
        records = self._records
        if records is None or self._hides_index:
            return None
        try:
            value = records.get(key)
            return None if value is None else msgspec.msgpack.decode(value, type=kind, dec_hook=revive)
        except (sqlite3.Error, msgspec.DecodeError, ValueError):
            self.report_damage()
            return None

    def report_damage(self) -> None:
        """Have the hub rebuild the index; until then what cannot be read is a miss."""
        if not self.is_damaged:
            self.is_damaged = True
            self.on_damage()


def _later(one: _Kind, other: _Kind | None) -> _Kind:
    """Return what was checked later: the index may lag behind the hub, as a door may that has not heard from it."""
    if isinstance(one, Link | Carried) or other is None or isinstance(other, Link | Carried):
        return one
    return one if one.checked_at > other.checked_at else other
