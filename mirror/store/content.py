"""Content files: whole, verified, never changed. `<path>/content/<algorithm>/<first two>/<hex>`."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mirror.oci.digest import Digest

_READ_BYTES = 64 * 1024
_BLOCK = 512
_ALGORITHMS = ("sha256", "sha512")


class Held(NamedTuple):
    """A content file: its length, what its blocks take, both in bytes, and its last use in seconds since the epoch."""

    digest: Digest
    size: int
    taken: int
    used: float


class Content:
    """The folder of content files. Blocking, but for a look-up or two: call the rest in a disk thread."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._published: set[str] | None = None
        # What is removed while the content is counted is counted only if its folder was read before.
        self._scanning = threading.Lock()
        self._scanned: set[str] | None = None
        self.uncounted: dict[Digest, int] = {}
        self.reading: Counter[Digest] = Counter()

    def path(self, digest: Digest) -> str:
        """Return where `digest` lies, held or not."""
        return f"{self._root}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"

    def open(self, digest: Digest) -> int | None:
        """Return a file descriptor on the content, the caller's to close; None if it is not held.

        The descriptor stays readable whatever happens to the name.
        """
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None

    def size(self, digest: Digest) -> int | None:
        """Return the size in bytes, None if it is not held."""
        try:
            return os.stat(self.path(digest)).st_size  # noqa: PTH116 - the path is text, and this is the hot way
        except FileNotFoundError:
            return None

    def read(self, digest: Digest) -> bytes | None:
        """Return all of it; for manifests, never for blobs. None if it is not held."""
        descriptor = self.open(digest)
        if descriptor is None:
            return None
        try:
            pieces = [os.read(descriptor, _READ_BYTES)]
            while len(pieces[-1]) == _READ_BYTES:
                pieces.append(os.read(descriptor, _READ_BYTES))
        finally:
            os.close(descriptor)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def peek(self, digest: Digest) -> bytes | None:
        """Return all of a manifest, without that counting as use where the file system would say so. Blocks."""
        try:
            descriptor = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOATIME)
        except FileNotFoundError:
            return None
        except PermissionError:  # another user's file
            return self.read(digest)
        with os.fdopen(descriptor, "rb") as file:
            return file.read()

    def used_at(self, digest: Digest) -> float | None:
        """Return when it was last used, as far as that is written, in seconds since the epoch; None if not held."""
        try:
            return os.stat(self.path(digest)).st_atime  # noqa: PTH116 - the path is text
        except FileNotFoundError:
            return None

    def publish(self, source: Path, digest: Digest) -> None:
        """Give a complete and verified file its final name, durably.

        Raises:
            OSError: the disk is full or broken; `source` is still where it was, or is published.
        """
        target = Path(self.path(digest))
        if not target.parent.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            sync(target.parent.parent)
        sync(source)
        if self._published is not None:
            self._published.add(digest.hex)
        source.replace(target)
        sync(target.parent)

    def begin_reading(self, digest: Digest) -> None:
        """Note that this process begins to read `digest` for a client."""
        self.reading[digest] += 1

    def end_reading(self, digest: Digest) -> None:
        """Note that it has ended."""
        self.reading[digest] -= 1
        if self.reading[digest] <= 0:
            del self.reading[digest]

    def remove(self, digest: Digest) -> int | None:
        """Delete the content of `digest`; who has it open goes on reading. Return what it took, None if it was gone.

        Raises:
            OSError: the disk is broken or read-only.
        """
        path = self.path(digest)
        with self._scanning:
            try:
                taken = os.stat(path).st_blocks * _BLOCK  # noqa: PTH116 - the path is text
                os.unlink(path)  # noqa: PTH108 - the path is text
            except FileNotFoundError:
                return None
            if self._scanned is not None and os.path.dirname(path) not in self._scanned:  # noqa: PTH120 - the path is text
                self.uncounted[digest] = taken
        return taken

    def taken(self, digest: Digest) -> int | None:
        """Return how many bytes the blocks of `digest` take, None if it is not held."""
        try:
            return os.stat(self.path(digest)).st_blocks * _BLOCK  # noqa: PTH116 - the path is text
        except FileNotFoundError:
            return None

    def files(self) -> Iterator[Held]:
        """Yield what is held, in no order; a file that comes or goes meanwhile may be missed."""
        for algorithm in _ALGORITHMS:
            for first in range(256):
                with contextlib.suppress(OSError), os.scandir(f"{self._root}/{algorithm}/{first:02x}") as entries:
                    for entry in entries:
                        found = _held(algorithm, entry)
                        if found is not None:
                            yield found

    def folders(self) -> list[str]:
        """Return the folders that content lies in."""
        return [str(folder) for folder in Path(self._root).glob("*/*")]

    def held(self, folder: str) -> list[tuple[Digest, int]]:
        """Return what lies in one of the `folders`, each with its size in bytes."""
        found = []
        algorithm = Path(folder).parent.name
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError, ValueError):
                    found.append((Digest.parse(f"{algorithm}:{entry.name}"), entry.stat().st_size))
        return found

    def scan(self) -> Iterator[tuple[str, int]]:
        """Return each file's hex and its size in bytes as its blocks count, but for those published from now on."""
        published: set[str] = set()
        self._published = published
        self._scanned = scanned = set[str]()

        def found() -> Iterator[tuple[str, int]]:
            for folder, _, _ in os.walk(self._root):
                listed: list[tuple[str, int | None]] = []
                with self._scanning:
                    scanned.add(folder)
                    with contextlib.suppress(OSError), os.scandir(folder) as entries:
                        listed = [(entry.name, _size_on_disk(entry)) for entry in entries]
                for name, size in listed:
                    if size is not None and name not in published:
                        yield name, size
            self._published = self._scanned = None

        return found()


def _held(algorithm: str, entry: os.DirEntry[str]) -> Held | None:
    try:
        digest = Digest.parse(f"{algorithm}:{entry.name}")
        facts = entry.stat()
    except (OSError, ValueError):
        return None
    return Held(digest, facts.st_size, facts.st_blocks * _BLOCK, facts.st_atime)


def _size_on_disk(entry: os.DirEntry[str]) -> int | None:
    """Return a file's size in bytes as its blocks count, None if it is no file, or gone."""
    try:
        return entry.stat().st_blocks * _BLOCK if entry.is_file() else None
    except OSError:
        return None


def sync(path: Path) -> None:
    """Have a file, or a folder's names, reach stable storage. Blocks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
