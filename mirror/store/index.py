"""The index: a diskcache beside the content, derived from journal and content, and never worth keeping when damaged."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import diskcache

DATABASE = "cache.db"
_HUGE = 2**62


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
        key: Any = diskcache.UNKNOWN,  # noqa: ARG002 - the base class calls it so
    ) -> tuple[int, int, None, Any]:
        """Return `value` as SQLite stores it."""
        if read or not isinstance(value, bytes):
            raise TypeError(f"index values are bytes, not {type(value).__name__}")
        return 0, diskcache.core.MODE_RAW, None, sqlite3.Binary(value)

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
    """Text → bytes on disk. Reads from any thread; writes from one."""

    def __init__(self, path: Path, *, checks: bool) -> None:
        """Open the index, making it if there is none; `checks` reads all of it first.

        Raises:
            sqlite3.Error: it is damaged, or the disk is full.
            OSError: the folder cannot be made.
        """
        if checks:
            self._check(path / DATABASE)
        self._cache = diskcache.Cache(
            str(path), disk=PlainDisk, eviction_policy="none", cull_limit=0, size_limit=_HUGE, statistics=0, timeout=5
        )

    @staticmethod
    def _check(database: Path) -> None:
        if not database.exists():
            return
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            answer = connection.execute("PRAGMA quick_check(1)").fetchone()
        if answer != ("ok",):
            raise sqlite3.DatabaseError(f"{database} is damaged")

    @staticmethod
    def remove(path: Path) -> None:
        """Delete an index with everything in it."""
        shutil.rmtree(path, ignore_errors=True)

    def get(self, key: str) -> bytes | None:
        """Return the value under `key`.

        Raises:
            sqlite3.Error: the index is damaged.
        """
        value: bytes | None = self._cache.get(key)
        return value

    def write(self, rows: Mapping[str, bytes | None]) -> None:
        """Set rows, or delete those whose value is None; all or nothing.

        Raises:
            sqlite3.Error: nothing was written.
        """
        with self._cache.transact():
            for key, value in rows.items():
                if value is None:
                    self._cache.delete(key)
                else:
                    self._cache.set(key, value)

    def keys(self) -> Iterable[str]:
        """Yield every key in ascending order."""
        yield from self._cache.iterkeys()

    def close(self) -> None:
        """Close this thread's connection."""
        self._cache.close()
