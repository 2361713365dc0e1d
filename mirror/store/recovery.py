"""From whatever a kill or a lost index left to a store that serves."""

from __future__ import annotations

import contextlib
import ctypes
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from mirror.oci.manifest import children
from mirror.store.journal import Journal, Position
from mirror.store.records import (
    Entry,
    Judged,
    Link,
    Linked,
    Ordered,
    TagDropped,
    TagSet,
    Unlinked,
    link_key,
    tag_key,
    verdict_key,
)
from mirror.store.shelf import POSITION, Record, Shelf

# Rows in one transaction: many of them fall on the same page.
_BATCH = 20_000
_CHILDREN = "children"
_RowsOf = Callable[[Entry], Iterable[tuple[str, Record | None]]]


class _Batch(NamedTuple):
    """Rows that follow from the journal up to an offset, and whose they are."""

    rows: dict[str, Record | None]
    repositories: set[str]
    end: int


def rows_of(entry: Entry, body: bytes | None) -> Iterator[tuple[str, Record | None]]:
    """Yield the index rows that follow from an entry; `body` is the manifest it links, if it does and it is held."""
    if isinstance(entry, TagSet):
        yield tag_key(entry.repository, entry.name), entry.state
    elif isinstance(entry, TagDropped):
        yield tag_key(entry.repository, entry.name), None
    elif isinstance(entry, Judged):
        yield verdict_key(entry.repository), entry.verdict
    elif isinstance(entry, Ordered):
        yield entry.key, entry.order
    elif isinstance(entry, Unlinked):
        yield from ((link_key(entry.repository, each), None) for each in entry.digests)
    else:
        yield from _links_of(entry, body)


def _links_of(entry: Linked, body: bytes | None) -> Iterator[tuple[str, Link]]:
    guarded = entry.link.is_guarded
    links = [(entry.digest, entry.link)]
    if body is not None:
        below = children(body)
        links += [(each.digest, Link(each.media_type or None, False, each.size, guarded)) for each in below.manifests]
        links += [(each.digest, Link(None, True, each.size, guarded)) for each in below.blobs]
    upstream = entry.repository.partition("/")[0]
    for digest, link in links:
        yield link_key(entry.repository, digest), link
        if entry.is_shared:
            yield link_key(upstream, digest), msgspec.structs.replace(link, origin=entry.repository)


class Recovery:
    """Brings the index in step with journal and content, while it serves.

    An index that is lost or damaged is built anew: first what the journal says, aside, then, in its place, what follows
    from the manifests. The index tells how far that has come, so that a later run goes on with it. One thread, but for
    what says otherwise.
    """

    def __init__(self, journal: Journal, shelf: Shelf, path: Path) -> None:
        """Prepare to recover the index of `shelf` in the store at `path`."""
        self._journal = journal
        self._shelf = shelf
        self._path = path
        self._is_checked = False
        self._is_derived = True
        self._in_memory: dict[str, Record | None] = {}
        self.built = 0
        self._log = structlog.get_logger("layover.store")

    @property
    def is_settled(self) -> bool:
        """Whether what the shelf does not know is not held. Any thread."""
        return self.is_readable and self._is_derived

    @property
    def is_built(self) -> bool:
        """Whether the index has all that journal and manifests say, as far as is known. Any thread."""
        return bool(self._in_memory) or (not self._shelf.is_damaged and self._is_derived)

    @property
    def is_readable(self) -> bool:
        """Whether the shelf knows at least all that the journal says. Any thread."""
        return bool(self._in_memory) or (self._is_checked and not self._shelf.is_damaged)

    @property
    def is_writable(self) -> bool:
        """Whether rows may be written to the index."""
        return not self._shelf.is_damaged

    def open(self) -> None:
        """Open the index and replay what it has not seen; whether all of it is good is for `check` to find out."""
        is_there = self._shelf.has_index
        try:
            self._shelf.open()
            seen = self._journal.locate(Position.parse(self._shelf.mark(POSITION)))
            if seen is None:
                self._start_anew(is_there=is_there)
                return
            self._is_derived = not self._shelf.mark(_CHILDREN)
            if seen != self._journal.end.offset:
                for batch in self._batches(seen, self._all_rows):
                    marks = {POSITION: str(self._journal.position(batch.end))}
                    self._shelf.write(batch.rows, marks, batch.repositories)
        except (sqlite3.Error, OSError) as error:
            self._log.warning("the index cannot be used", error=str(error))
            self._shelf.is_damaged = True

    def _start_anew(self, *, is_there: bool) -> None:
        if next(self._journal.entries(), None) is None:
            self._shelf.write({}, self.marks(), set())
            self._is_checked = True
            return
        if is_there:
            self._log.warning("the index is of another journal")
        # What it says may be outdated, which nothing would tell.
        self._shelf.remove_index()
        self._shelf.is_damaged = True

    def check(self, is_given_up: Callable[[], bool]) -> None:
        """Read all of the index, and have it built anew if it is damaged. Blocks; any thread."""
        built = self.built
        if self._is_checked or self._shelf.is_damaged:
            return
        try:
            self._shelf.check_index(is_given_up)
        except sqlite3.Error as error:
            if built == self.built and not is_given_up():
                self._log.warning("the index is damaged", error=str(error))
                self._shelf.report_damage()
        else:
            self._is_checked = True

    def steps(self) -> Iterator[None]:
        """Do what there is to do, in steps that are short; once they end the index is whole.

        Raises:
            OSError: the disk is full or broken.
            sqlite3.Error: likewise.
        """
        while self._shelf.is_damaged or not self._is_derived:
            if not self._shelf.is_damaged:
                yield from self._derive()
                continue
            try:
                yield from self._rebuild()
            except (sqlite3.Error, OSError):
                self._hold_in_memory()
                raise

    def _rebuild(self) -> Iterator[None]:
        if not self._in_memory:
            self._log.warning("the index is built anew from the journal and the content")
        fresh = Shelf(self._path, remembers_tags=False, index="index.new")
        fresh.remove_index()
        try:
            fresh.open(is_aside=True)
            fresh.expect_bulk(is_bulk=True)
            for batch in self._batches(0, self._told_rows, fresh):
                marks = {POSITION: str(self._journal.position(batch.end)), _CHILDREN: "0"}
                fresh.write(batch.rows, marks, batch.repositories)
                yield
            self._shelf.take_index(fresh)
        finally:
            fresh.remove_index()
        self.built += 1
        self._is_derived = False
        self._is_checked = True
        self._shelf.is_damaged = False
        self._shelf.drop_unwritten(self._in_memory)
        self._in_memory = {}

    def _derive(self) -> Iterator[None]:
        """Write what follows from the manifests that are held, from where an earlier run came to."""
        start = self._shelf.mark(_CHILDREN)
        self._shelf.expect_bulk(is_bulk=True)
        for batch in self._batches(int(start) if start.isdecimal() else 0, self._manifest_rows):
            if self._shelf.is_damaged:
                return
            self._shelf.write(batch.rows, {_CHILDREN: str(batch.end)}, set())
            yield
        self._shelf.write({}, {_CHILDREN: ""}, set())
        self._shelf.expect_bulk(is_bulk=False)
        _return_memory()
        self._is_derived = True
        self._log.info("the index is whole again")

    def _hold_in_memory(self) -> None:
        """Show what the journal and the content say without an index."""
        if not self._in_memory:
            self._shelf.remove_index()
            for batch in self._batches(0, self._all_rows):
                self._in_memory |= batch.rows
                self._shelf.remember(batch.rows)

    def rows_under(self, repository: str) -> dict[str, Record | None]:
        """Return the rows of one repository, before its turn has come. Blocks; any thread."""
        rows: dict[str, Record | None] = {}
        if not self.is_readable:
            for entry in self._journal.entries_of(repository):
                _add(rows, self._all_rows(entry))
            return rows
        # The index has what the journal says: its turn is to come for what follows from the manifests alone.
        for digest, link in self._shelf.links(repository):
            _add(rows, self._manifest_rows(Linked(repository, digest, link, is_shared=False)))
        return rows

    def merged(self, rows: Mapping[str, Record | None], shelf: Shelf | None = None) -> dict[str, Record | None]:
        """Return rows together with what the index has: whoever made them may not have seen it.

        Raises:
            sqlite3.Error: the index is damaged.
        """
        known = (shelf or self._shelf).written_links(key for key, row in rows.items() if isinstance(row, Link))
        return {key: row.merged(known.get(key)) if isinstance(row, Link) else row for key, row in rows.items()}

    def marks(self) -> dict[str, str]:
        """Return what the index says once it stands for all of the journal."""
        return {POSITION: str(self._journal.end)}

    def _batches(self, start: int, rows_of_entry: _RowsOf, shelf: Shelf | None = None) -> Iterator[_Batch]:
        """Yield what follows from the journal from `start` on, on top of what `shelf` has."""
        batch = _Batch({}, set(), start)
        for end, entry in self._journal.entries(start):
            _add(batch.rows, rows_of_entry(entry))
            if isinstance(entry, TagSet | Linked):
                batch.repositories.add(entry.repository)
            batch = _Batch(batch.rows, batch.repositories, end)
            if len(batch.rows) >= _BATCH:
                yield batch._replace(rows=self.merged(batch.rows, shelf))
                batch = _Batch({}, set(), end)
        yield batch._replace(rows=self.merged(batch.rows, shelf))

    def _told_rows(self, entry: Entry) -> Iterable[tuple[str, Record | None]]:
        return rows_of(entry, None)

    def _manifest_rows(self, entry: Entry) -> Iterable[tuple[str, Record | None]]:
        if not isinstance(entry, Linked) or entry.link.media_type is None:
            return ()
        # What was purged since is not linked any more, and nothing follows from it, though others may hold it.
        link = self._shelf.stored_link(entry.repository, entry.digest)
        return () if link is None else self._all_rows(entry)

    def _all_rows(self, entry: Entry) -> Iterable[tuple[str, Record | None]]:
        body = None
        if isinstance(entry, Linked) and entry.link.media_type is not None:
            body = self._shelf.content.read(entry.digest)
        return rows_of(entry, body)


def _return_memory() -> None:
    """Give the kernel back what a build took, which the C library keeps otherwise; not every one can."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _add(rows: dict[str, Record | None], more: Iterable[tuple[str, Record | None]]) -> None:
    """Add rows to others that came before."""
    for key, row in more:
        known = rows.get(key) if isinstance(row, Link) else None
        rows[key] = row.merged(known) if isinstance(row, Link) and isinstance(known, Link) else row
