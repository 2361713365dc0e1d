"""The one thread that writes journal and index, in batches and in order."""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import structlog

from mirror.store.journal import Journal
from mirror.store.records import Entry
from mirror.store.recovery import Recovery
from mirror.store.shelf import Record, Shelf

_MOST_WAITING = 50_000
_RETRY_SECONDS = 1.0
_COMPACTION_PAUSE = 10.0


class Change(NamedTuple):
    """What happened to the store: entries that must survive the index, and the rows that follow from them.

    `is_blind`: the index was not whole then, and may know more of what the rows tell.
    """

    entries: tuple[Entry, ...]
    rows: Mapping[str, Record | None]
    repository: str | None
    is_blind: bool = False


class Writer:
    """Takes changes at once and writes them soon; a full disk delays them, and at worst loses the oldest."""

    def __init__(self, journal: Journal, shelf: Shelf, recovery: Recovery) -> None:
        self._journal = journal
        self._shelf = shelf
        self._recovery = recovery
        self._changes: queue.SimpleQueue[Change | None] = queue.SimpleQueue()
        self._waiting: list[Change] = []
        self._log = structlog.get_logger("layover.store")
        self._is_failing = False
        self._steps: Iterator[None] | None = None
        self._compacts_from = 0.0
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.wake()
        self._thread.start()

    def put(self, change: Change) -> None:
        """Take a change; readers of the shelf see it at once."""
        self._shelf.remember(change.rows)
        self._changes.put(change._replace(is_blind=not self._recovery.is_settled))

    def wake(self) -> None:
        """Look after index and journal, though nothing changed."""
        self._changes.put(Change((), {}, None))

    def close(self) -> None:
        """Write what waits, once more if the disk refused it, and end the thread. Blocks."""
        self._changes.put(None)
        self._thread.join()

    def _run(self) -> None:
        open_ = True
        while open_:
            open_ = self._collect()
            try:
                self._flush()
                if open_:
                    self._tend()
            except Exception as error:  # noqa: BLE001 - without this thread nothing would ever be written again
                self._failed(error)
            else:
                self._succeeded()

    def _collect(self) -> bool:
        """Wait for changes and take all there are, or for none where there is more to do; False at the end."""
        try:
            if self._steps is not None:
                change = self._changes.get_nowait()
            else:
                change = self._changes.get(timeout=_RETRY_SECONDS if self._is_failing else None)
        except queue.Empty:
            return True
        if self._is_failing and change is not None:
            time.sleep(0.05)  # a full disk must not turn every change into an attempt of its own
        while change is not None:
            self._waiting.append(change)
            try:
                change = self._changes.get_nowait()
            except queue.Empty:
                self._give_up_oldest()
                return True
        return False

    def _flush(self) -> None:
        """Write what waits: to the journal at once, to the index unless it is damaged.

        Raises:
            OSError: the disk is full or broken.
            sqlite3.Error: likewise.
        """
        entries = [entry for change in self._waiting for entry in change.entries]
        if entries:
            self._journal.append(entries)
        self._waiting = [change._replace(entries=()) for change in self._waiting]
        if not self._waiting or not self._recovery.is_writable:
            return
        rows = {key: row for change in self._waiting for key, row in change.rows.items()}
        repositories = {change.repository for change in self._waiting if change.repository is not None}
        if any(change.is_blind for change in self._waiting):
            rows = self._recovery.merged(rows)
        self._shelf.write(rows, self._recovery.marks(), repositories)
        for change in self._waiting:
            self._shelf.drop_unwritten(change.rows)
        self._waiting = []

    def _tend(self) -> None:
        """Do a step of what the index needs, or else shorten the journal once most of it was replaced.

        Raises:
            OSError: the disk is full or broken.
            sqlite3.Error: likewise.
        """
        try:
            self._steps = self._steps or self._recovery.steps()
            next(self._steps)
        except StopIteration:
            self._steps = None
        except (OSError, sqlite3.Error):
            self._steps = None
            raise
        if self._steps is None and not self._waiting and self._recovery.is_settled:
            self._compact()

    def _compact(self) -> None:
        if not self._journal.wants_compaction or time.monotonic() < self._compacts_from:
            return
        try:
            self._journal.compact()
        except OSError as error:
            self._log.error("the journal cannot be compacted", error=str(error))
            self._compacts_from = time.monotonic() + _COMPACTION_PAUSE
            return
        self._shelf.write({}, self._recovery.marks(), set())

    def _succeeded(self) -> None:
        if self._is_failing:
            self._log.info("the store's journal and index are written again")
        self._is_failing = False

    def _failed(self, error: Exception) -> None:
        if type(error) is sqlite3.DatabaseError:
            self._shelf.is_damaged = True
        if not self._is_failing:
            self._log.error("the store's journal or index cannot be written", error=repr(error))
        self._is_failing = True

    def _give_up_oldest(self) -> None:
        for change in self._waiting[:-_MOST_WAITING]:
            self._shelf.drop_unwritten(change.rows)
        del self._waiting[:-_MOST_WAITING]
