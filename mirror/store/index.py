"""The index: a diskcache beside the content, derived from journal and content, and never worth keeping when damaged."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import diskcache

DATABASE = "cache.db"
_HUGE = 2**62
_COUNT = "#"
_SEAL_BYTES = 4
# How long a look-up of a door may wait for whoever mends what a killed hub left.
_READ_TIMEOUT = 0.25
_KEYS_UNDER = "SELECT key FROM Cache WHERE raw = 1 AND key >= ? AND key < ? ORDER BY key LIMIT ?"


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

    def store(
        self,
        value: Any,
        read: bool,
        key: Any = diskcache.UNKNOWN,
    ) -> tuple[int, int, None, Any]:
        """Return `value` as SQLite stores it."""
        if read or not isinstance(value, bytes):
            raise TypeError(f"index values are bytes, not {type(value).__name__}")
        return 0, diskcache.core.MODE_RAW, None, sqlite3.Binary(_sealed(key, value))

    def fetch(
        self,
        mode: int,
        filename: str | None,
        value: Any,
        read: bool,  # noqa: ARG002 - the base class calls it so
    ) -> bytes:
        """Return a stored value; refuse one that claims to be pickled or to lie in a file."""
        if mode != diskcache.core.MODE_RAW or filename is not None or not isinstance(value, bytes):
            raise sqlite3.DatabaseError("a value in the index that is not plain bytes")
        return value


class Index:
    """Text → bytes on disk, each row checksummed. Reads from any thread; writes from one.

    A row of its own, which `keys` leaves out, counts the rows: one that is lost is missed.
    """

    def __init__(self, path: Path, *, checks: bool) -> None:
        """Open the index, making it if there is none; `checks` reads all of it first.

        Raises:
            sqlite3.Error: it is damaged, or the disk is full.
            OSError: the folder cannot be made.
        """
        if checks:
            _check(path / DATABASE)
        with _as_sqlite():
            self._cache = diskcache.Cache(
                str(path),
                disk=PlainDisk,
                eviction_policy="none",
                cull_limit=0,
                size_limit=_HUGE,
                statistics=0,
                timeout=5,
            )

    @staticmethod
    def remove(path: Path) -> None:
        """Delete an index with everything in it, whatever lies there."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def get(self, key: str) -> bytes | None:
        """Return the value under `key`.

        Raises:
            sqlite3.Error: the index is damaged.
        """
        row: bytes | None = self._cache.get(key)
        return None if row is None else _unsealed(key, row)

    def write(self, rows: Mapping[str, bytes | None]) -> None:
        """Set rows, or delete those whose value is None; all or nothing.

        Raises:
            sqlite3.Error: nothing was written.
        """
        with _as_sqlite(), self._cache.transact():
            for key, value in rows.items():
                if value is None:
                    self._cache.delete(key)
                else:
                    self._cache.set(key, value)
            # Behind the last write of each transaction: a row that is lost later is missed.
            self._cache.set(_COUNT, b"")
            self._cache.set(_COUNT, str(len(self._cache)).encode())

    def keys(self) -> Iterable[str]:
        """Yield every key in ascending order."""
        for key in self._cache.iterkeys():
            if key != _COUNT:
                yield key

    def keys_under(self, prefix: str, limit: int = -1) -> list[str]:
        """Return the keys that begin with `prefix`, in ascending order; at most `limit` if it is not negative.

        Raises:
            sqlite3.Error: the index is damaged.
        """
        rows = self._cache._sql(_KEYS_UNDER, _bounds(prefix, limit))  # noqa: SLF001 - no public way
        return [key for (key,) in rows]

    def close(self) -> None:
        """Close this thread's connection."""
        self._cache.close()


class IndexReader:
    """An index that another process writes. Any thread; never writes, nor makes an index where there is none."""

    def __init__(self, path: Path) -> None:
        """Open the index at `path`.

        Raises:
            sqlite3.Error: there is none.
        """
        uri = f"{(path / DATABASE).resolve().as_uri()}?mode=rw"  # what a killed writer left may need to be recovered
        self._connection = sqlite3.connect(
            uri, uri=True, timeout=_READ_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        try:
            self._connection.execute("PRAGMA query_only = 1")
        except sqlite3.Error:
            self._connection.close()
            raise

    def get(self, key: str) -> bytes | None:
        """See `Index`."""
        row = self._connection.execute("SELECT value FROM Cache WHERE key = ? AND raw = 1", (key,)).fetchone()
        return None if row is None else _unsealed(key, row[0])

    def keys(self) -> Iterable[str]:
        """See `Index`."""
        return [key for key in self.keys_under("") if key != _COUNT]

    def keys_under(self, prefix: str, limit: int = -1) -> list[str]:
        """See `Index`."""
        return [key for (key,) in self._connection.execute(_KEYS_UNDER, _bounds(prefix, limit))]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _bounds(prefix: str, limit: int) -> tuple[str, str, int]:
    return prefix, f"{prefix}{chr(sys.maxunicode)}", limit


@contextlib.contextmanager
def _as_sqlite() -> Iterator[None]:
    """Turn diskcache's own error, which hides a locked, read-only or failing database, into SQLite's."""
    try:
        yield
    except diskcache.Timeout as error:
        raise sqlite3.OperationalError("the index is locked or cannot be written") from error


def _check(database: Path) -> None:
    """Read every page and every row of a database, if there is one."""
    if not database.exists():
        return
    counted, count = 0, None
    with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        connection.text_factory = bytes
        if connection.execute("PRAGMA quick_check(1)").fetchone() != (b"ok",):
            raise sqlite3.DatabaseError(f"{database} is damaged")
        # By the way that look-ups go: nothing else compares SQLite's own index with the rows that it leads to.
        for key, row in connection.execute("SELECT key, value FROM Cache INDEXED BY Cache_key_raw ORDER BY key, raw"):
            if not isinstance(key, bytes) or not isinstance(row, bytes):
                raise sqlite3.DatabaseError(f"{database} is damaged: a row of another kind")
            value = _unsealed(key.decode(errors="replace"), row)
            counted += 1
            if key == _COUNT.encode():
                count = int(value)
    if count not in {counted, None} or (count is None and counted):
        raise sqlite3.DatabaseError(f"{database} is damaged: it has lost rows")


def _sealed(key: str, value: bytes) -> bytes:
    return zlib.crc32(value, zlib.crc32(key.encode())).to_bytes(_SEAL_BYTES, "big") + value


def _unsealed(key: str, row: bytes) -> bytes:
    value = row[_SEAL_BYTES:]
    if _sealed(key, value) != row:
        raise sqlite3.DatabaseError(f"the index is damaged at {key[:300]!r}")
    return value
