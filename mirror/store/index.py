"""The index: a diskcache beside the content, derived from journal and content, and never worth keeping when damaged."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import diskcache

DATABASE = "cache.db"
_HUGE = 2**62
_COUNT = "#"
_MOST_KEYS = 500
_SEAL_BYTES = 4
# How long a look-up of a door may wait for whoever mends what a killed hub left.
_READ_TIMEOUT = 0.25
_RAW = diskcache.core.MODE_RAW
# Of each connection, of which every thread has one. The kernel keeps the file for all processes together; pages that
# are mapped would count as this process's own.
_CACHE_KIB = 1024
_BULK_CACHE_KIB = 64 * 1024
_LOG_PAGES = 1000
_BULK_LOG_PAGES = 32_000
_LONGEST_LOG = 16 * 2**20
_STEPS_BETWEEN_LOOKS = 100_000
_UPSERT = (
    "INSERT INTO Cache(key, raw, store_time, access_time, mode, value) VALUES (?, 1, ?, ?, ?, ?)"
    " ON CONFLICT(key, raw) DO UPDATE SET store_time = excluded.store_time, mode = excluded.mode, filename = NULL,"
    " value = excluded.value"
)


class PlainDisk(diskcache.Disk):  # type: ignore[misc]
    """Keys are text and values are bytes: nothing is ever pickled or unpickled (CVE-2025-69872)."""

    def put(self, key: Any) -> tuple[Any, bool]:
        """Return `key` as SQLite stores it."""
        if not isinstance(key, str):
            raise TypeError(f"index keys are text, not {type(key).__name__}")
        return key, True

    def get(self, key: Any, raw: bool) -> Any:
        """Return a stored key; refuse one that claims to be pickled."""
        if not raw:
            raise sqlite3.DatabaseError("a pickled key in the index")
        return key

    def store(self, value: Any, read: bool, key: Any = diskcache.UNKNOWN) -> tuple[int, int, None, Any]:
        """Return `value` as SQLite stores it."""
        if read or not isinstance(value, bytes):
            raise TypeError(f"index values are bytes, not {type(value).__name__}")
        return 0, _RAW, None, sqlite3.Binary(_sealed(key, value))

    def fetch(
        self,
        mode: int,
        filename: str | None,
        value: Any,
        read: bool,  # noqa: ARG002 - the base class calls it so
    ) -> bytes:
        """Return a stored value; refuse one that claims to be pickled or to lie in a file."""
        if mode != _RAW or filename is not None or not isinstance(value, bytes):
            raise sqlite3.DatabaseError("a value in the index that is not plain bytes")
        return value


class IndexReader:
    """Text → bytes on disk, each row checksummed, as another process writes it. Any thread; never waits for a writer.

    A row of its own, which `keys` leaves out, counts the rows: one that is lost is missed.
    """

    def __init__(self, path: Path) -> None:
        """Open an index that is there.

        Raises:
            sqlite3.Error: it is not, or is damaged.
        """
        self._uri = f"{(path / DATABASE).absolute().as_uri()}?mode=ro"
        self._disk = PlainDisk(str(path))
        self._local = threading.local()
        self._read("SELECT value FROM Cache LIMIT 1").fetchone()

    def get(self, key: str) -> bytes | None:
        """Return the value under `key`.

        Raises:
            sqlite3.Error: the index is damaged.
        """
        found = self._read("SELECT mode, filename, value FROM Cache WHERE key = ? AND raw = 1", (key,)).fetchone()
        if found is None:
            return None
        mode, filename, row = found
        return _unsealed(key, self._disk.fetch(mode, filename, row, read=False))

    def get_all(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the values under `keys`, of those that are there.

        Raises:
            sqlite3.Error: the index is damaged.
        """
        found = {}
        wanted = sorted(keys)
        for first in range(0, len(wanted), _MOST_KEYS):
            some = wanted[first : first + _MOST_KEYS]
            places = ",".join("?" * len(some))
            statement = f"SELECT key, mode, filename, value FROM Cache WHERE raw = 1 AND key IN ({places})"  # noqa: S608 - of places alone
            for key, mode, filename, row in self._read(statement, tuple(some)):
                found[key] = _unsealed(key, self._disk.fetch(mode, filename, row, read=False))
        return found

    def keys(self) -> Iterable[str]:
        """Yield every key in ascending order.

        Raises:
            sqlite3.Error: the index is damaged.
        """
        for key, raw in self._read("SELECT key, raw FROM Cache ORDER BY key, raw"):
            if key != _COUNT:
                yield self._disk.get(key, raw)

    def keys_under(self, prefix: str, limit: int = -1) -> list[str]:
        """Return the keys that begin with `prefix`, in ascending order; at most `limit` if it is not negative.

        Raises:
            sqlite3.Error: the index is damaged.
        """
        return list(self.each_key_under(prefix, limit))

    def each_key_under(self, prefix: str, limit: int = -1) -> Iterator[str]:
        """Yield what `keys_under` returns.

        Raises:
            sqlite3.Error: the index is damaged.
        """
        statement = "SELECT key FROM Cache WHERE raw = 1 AND key >= ? AND key < ? ORDER BY key LIMIT ?"
        for (key,) in self._read(statement, (prefix, f"{prefix}{chr(sys.maxunicode)}", limit)):
            yield key

    def close(self) -> None:
        """Close this thread's connection; the others are closed with the last reference to this index."""
        connection = self._local.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    def _read(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = sqlite3.connect(
                self._uri, uri=True, timeout=_READ_TIMEOUT, check_same_thread=False
            )
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        return connection.execute(statement, values)


class Index(IndexReader):
    """The index as the one process that writes it has it. Reads from any thread; writes from one."""

    def __init__(self, path: Path, *, is_aside: bool = False) -> None:
        """Open the index, making it if there is none; `is_aside` where a power loss may take it.

        Raises:
            sqlite3.Error: it is damaged, or the disk is full.
            OSError: the folder cannot be made.
        """
        try:
            with _as_sqlite():
                self._cache = diskcache.Cache(
                    str(path),
                    disk=PlainDisk,
                    eviction_policy="none",
                    cull_limit=0,
                    size_limit=_HUGE,
                    statistics=0,
                    timeout=5,
                    sqlite_mmap_size=0,
                    sqlite_cache_size=-_CACHE_KIB,
                    sqlite_journal_size_limit=_LONGEST_LOG,
                    sqlite_wal_autocheckpoint=_LOG_PAGES,
                    sqlite_synchronous=0 if is_aside else 1,
                )
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # It believes whatever stands in its table of settings.
            raise sqlite3.DatabaseError("the index's settings are damaged") from error
        super().__init__(path)

    @staticmethod
    def remove(path: Path) -> None:
        """Delete an index with everything in it, whatever lies there."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    @staticmethod
    def check(path: Path, is_given_up: Callable[[], bool] = lambda: False) -> None:
        """Read every page and every row of an index, until `is_given_up`. Blocks; any thread.

        Raises:
            sqlite3.Error: it is damaged, or was given up.
        """
        uri = f"{(path / DATABASE).absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.set_progress_handler(is_given_up, _STEPS_BETWEEN_LOOKS)
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            _check(connection)

    def expect_bulk(self, *, is_bulk: bool) -> None:
        """Take more memory while much is written, or give it back; called by the thread that writes.

        Raises:
            sqlite3.Error: the index is damaged.
        """
        with _as_sqlite():
            self._cache.reset("sqlite_cache_size", -(_BULK_CACHE_KIB if is_bulk else _CACHE_KIB))
            self._cache.reset("sqlite_wal_autocheckpoint", _BULK_LOG_PAGES if is_bulk else _LOG_PAGES)

    def write(self, rows: Mapping[str, bytes | None]) -> None:
        """Set rows, or delete those whose value is None; all or nothing.

        Raises:
            sqlite3.Error: nothing was written.
        """
        now = time.time()
        sealed = [
            (self._disk.put(key)[0], now, now, _RAW, self._disk.store(value, read=False, key=key)[3])
            for key, value in sorted(rows.items())
            if value is not None
        ]
        noted = self.get(_COUNT)
        # diskcache's own way to set a row takes five statements each, and an index built anew has a million rows.
        with _as_sqlite(), self._cache.transact():
            before = len(self._cache)
            if noted is None and before:
                raise sqlite3.DatabaseError("the index has lost rows")
            connection = self._cache._con  # noqa: SLF001 - no public way
            connection.executemany(_UPSERT, sealed)
            for key in [key for key, value in rows.items() if value is None]:
                self._cache.delete(key)
            # Behind the last write of each transaction, and never counted anew: a row that is lost is missed for good.
            self._cache.set(_COUNT, b"")
            self._cache.set(_COUNT, str(int(noted or 0) + len(self._cache) - before).encode())

    def close(self) -> None:
        """Close this thread's connections."""
        super().close()
        self._cache.close()


@contextlib.contextmanager
def _as_sqlite() -> Iterator[None]:
    """Turn diskcache's own error, which hides a locked, read-only or failing database, into SQLite's."""
    try:
        yield
    except diskcache.Timeout as error:
        raise sqlite3.OperationalError("the index is locked or cannot be written") from error


def _check(connection: sqlite3.Connection) -> None:
    counted, count = 0, None
    connection.text_factory = bytes
    if connection.execute("PRAGMA quick_check(1)").fetchone() != (b"ok",):
        raise sqlite3.DatabaseError("a page is damaged")
    # By the way that look-ups go: nothing else compares SQLite's own index with the rows that it leads to.
    for key, row in connection.execute("SELECT key, value FROM Cache INDEXED BY Cache_key_raw ORDER BY key, raw"):
        if not isinstance(key, bytes) or not isinstance(row, bytes):
            raise sqlite3.DatabaseError("a row of another kind")
        seal = zlib.crc32(row[_SEAL_BYTES:], zlib.crc32(key))
        if seal.to_bytes(_SEAL_BYTES, "big") != row[:_SEAL_BYTES]:
            raise sqlite3.DatabaseError(f"the index is damaged at {key[:300]!r}")
        counted += 1
        if key == _COUNT.encode():
            count = int(row[_SEAL_BYTES:])
    if count not in {counted, None} or (count is None and counted):
        raise sqlite3.DatabaseError("it has lost rows")


def _sealed(key: str, value: bytes) -> bytes:
    return zlib.crc32(value, zlib.crc32(key.encode())).to_bytes(_SEAL_BYTES, "big") + value


def _unsealed(key: str, row: bytes) -> bytes:
    value = row[_SEAL_BYTES:]
    if _sealed(key, value) != row:
        raise sqlite3.DatabaseError(f"the index is damaged at {key[:300]!r}")
    return value
