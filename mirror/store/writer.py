"""The one thread that writes journal and index, in batches and in order."""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Mapping
from typing import NamedTuple

import structlog

from mirror.store.journal import Journal
from mirror.store.records import Entry
from mirror.store.recovery import Recovery
from mirror.store.shelf import Record, Shelf

_MOST_WAITING = 50_000
_RETRY_SECONDS = 1.0


class Change(NamedTuple):
    """What happened to the store: entries that must survive the index, and the rows that follow from them."""

    entries: tuple[Entry, ...]
    rows: Mapping[str, Record | None]
    repository: str | None


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
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, change: Change) -> None:
        """Take a change; readers of the shelf see it at once."""
        self._shelf.remember(change.rows)
        self._changes.put(change)

    def wake(self) -> None:
        """Look after the index, though nothing changed."""
        self._changes.put(Change((), {}, None))

    def close(self) -> None:
        """Write what waits, once more if the disk refused it, and end the thread. Blocks."""
        self._changes.put(None)
        self._thread.join()

    def _run(self) -> None:
        open_ = True
        while open_:
            open_ = self._collect()
            if not self._waiting and not self._shelf.is_damaged:
                continue
            try:
                self._flush()
            except Exception as error:  # noqa: BLE001 - without this thread nothing would ever be written again
                self._failed(error)

    def _collect(self) -> bool:
        """Wait for changes and take all there are; False once the end was asked for."""
        try:
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
        try:
            if self._shelf.is_damaged:
                self._log.warning("the index is damaged and is rebuilt from the journal and the content")
                self._recovery.rebuild()
            entries = [entry for change in self._waiting for entry in change.entries]
            position = self._journal.append(entries) if entries else self._journal.end
            self._waiting = [change._replace(entries=()) for change in self._waiting]
            rows = {key: row for change in self._waiting for key, row in change.rows.items()}
            repositories = {change.repository for change in self._waiting if change.repository is not None}
            self._shelf.write(rows, str(position), repositories)
        except (OSError, sqlite3.Error) as error:
            if type(error) is sqlite3.DatabaseError:
                self._shelf.is_damaged = True
            self._failed(error)
            return
        if self._is_failing:
            self._log.info("the store's journal and index are written again")
        self._is_failing = False
        self._waiting = []

    def _failed(self, error: Exception) -> None:
        if not self._is_failing:
            self._log.error("the store's journal or index cannot be written", error=repr(error))
        self._is_failing = True

    def _give_up_oldest(self) -> None:
        for change in self._waiting[:-_MOST_WAITING]:
            self._shelf.drop_unwritten(change.rows)
        del self._waiting[:-_MOST_WAITING]
