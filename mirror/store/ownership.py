"""Whose a store is: one process's at a time, of a release that knows its format."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import msgspec

from mirror.oci.errors import LayoverError
from mirror.store.content import sync

# An older release runs a store of format 1. It would lose what the first order wrote, and so refuses format 2.
FORMAT = 2
_FORMAT_WITHOUT_ORDERS = 1


class StoreError(LayoverError):
    """The store cannot be used; the text names the folder and what to do."""


class _Format(msgspec.Struct, frozen=True):
    version: int


class Ownership:
    """What the owner of a store has, from `take` until `give_up`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = -1
        self.knows_orders = False

    def take(self) -> None:
        """Take the store over, made if there is none. Blocks.

        Raises:
            StoreError: another process owns it, or a newer release made it.
            OSError: the folder cannot be used.
        """
        for name in ("content", "partial", "index"):
            (self._path / name).mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"store.path {self._path}: is in use by another Layover; stop it, or give this one its own path"
            ) from None
        self._check_format()

    def give_up(self) -> None:
        """Let another process have it."""
        os.close(self._lock)

    def expect_orders(self) -> None:
        """Have releases that know no orders refuse the store, before there is anything that they would lose. Blocks.

        Raises:
            OSError: the disk is full or broken.
        """
        self._set_format(FORMAT)
        self.knows_orders = True

    def _check_format(self) -> None:
        found = self._format()
        if found is None:
            with contextlib.suppress(OSError):  # a full disk: the next start writes it
                self._set_format(_FORMAT_WITHOUT_ORDERS)
        self.knows_orders = found == FORMAT
        if found is not None and found > FORMAT:
            raise StoreError(
                f"store.path {self._path}: has format {found}, this release knows {FORMAT}; run the newer release"
            )

    def _format(self) -> int | None:
        try:
            return msgspec.json.decode((self._path / "format").read_bytes(), type=_Format).version
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def _set_format(self, version: int) -> None:
        fresh = self._path / "format.new"
        fresh.write_bytes(msgspec.json.encode(_Format(version)))
        sync(fresh)
        fresh.replace(self._path / "format")
        sync(self._path)
