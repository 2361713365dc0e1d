"""From whatever a kill or a lost index left to a store that serves."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

import msgspec
import structlog

from mirror.oci.manifest import children
from mirror.store.journal import Journal, Position
from mirror.store.records import Entry, Judged, Link, Linked, TagDropped, TagSet, link_key, tag_key, verdict_key
from mirror.store.shelf import Record, Shelf

_BATCH = 2_000


def rows_of(entry: Entry, body: bytes | None) -> Iterator[tuple[str, Record | None]]:
    """Yield the index rows that follow from an entry; `body` is the manifest it links, if it does and it is held."""
    if isinstance(entry, TagSet):
        yield tag_key(entry.repository, entry.name), entry.state
    elif isinstance(entry, TagDropped):
        yield tag_key(entry.repository, entry.name), None
    elif isinstance(entry, Judged):
        yield verdict_key(entry.repository), entry.verdict
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
    """Brings the index in step with journal and content. Blocks; one thread."""

    def __init__(self, journal: Journal, shelf: Shelf) -> None:
        self._journal = journal
        self._shelf = shelf
        self._log = structlog.get_logger("layover.store")

    def run(self) -> None:
        """Open the index; replay what it has not seen, or build it anew if it is lost or damaged."""
        try:
            self._catch_up()
        except (sqlite3.Error, OSError) as error:
            self._log.warning("the index is damaged and is rebuilt", error=str(error))
            try:
                self.rebuild()
            except (sqlite3.Error, OSError) as again:
                # Everything is in memory until the index can be written: the writer tries to rebuild it.
                self._log.error("the index cannot be rebuilt", error=str(again))
                self._replay(None, lambda rows, *_: self._shelf.remember(rows))
                return
        if self._journal.wants_compaction:
            try:
                self._journal.compact()
                self._shelf.write({}, str(self._journal.end), set())
            except (sqlite3.Error, OSError) as error:
                self._log.error("the journal cannot be compacted", error=str(error))

    def _catch_up(self) -> None:
        self._shelf.open()
        seen = Position.parse(self._shelf.position)
        end = self._journal.end
        if seen is None or seen.identity != end.identity or seen.offset > end.offset:
            self.rebuild()
        elif seen != end:
            self._replay(seen, self._shelf.write)

    def rebuild(self) -> None:
        """Build the index anew from the journal and the content.

        Raises:
            OSError: the disk is full or broken.
            sqlite3.Error: likewise.
        """
        self._shelf.is_damaged = True
        self._shelf.remove_index()
        self._shelf.open()
        self._replay(None, self._shelf.write)
        self._shelf.is_damaged = False

    def _replay(self, since: Position | None, write: Callable[[dict[str, Record | None], str, set[str]], None]) -> None:
        rows: dict[str, Record | None] = {}
        repositories: set[str] = set()
        for entry in self._journal.replay(since):
            body = None
            if isinstance(entry, Linked) and entry.link.media_type is not None:
                body = self._shelf.content.read(entry.digest)
            for key, row in rows_of(entry, body):
                rows[key] = self._merged(key, row, rows)
            if not isinstance(entry, Judged):
                repositories.add(entry.repository)
            if len(rows) >= _BATCH:
                write(rows, "", repositories)
                rows, repositories = {}, set()
        write(rows, str(self._journal.end), repositories)

    def _merged(self, key: str, row: Record | None, rows: dict[str, Record | None]) -> Record | None:
        if not isinstance(row, Link):
            return row
        known = rows.get(key) or self._shelf.stored_link(key)
        return row.merged(known) if isinstance(known, Link) else row
