"""Content files: whole, verified, never changed. `<path>/content/<algorithm>/<first two>/<hex>`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from mirror.oci.digest import Digest

_READ_BYTES = 64 * 1024


class Content:
    """The folder of content files. Blocking, but for a look-up or two: call the rest in a disk thread."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._published: set[str] | None = None

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

        def found() -> Iterator[tuple[str, int]]:
            for folder, _, _ in os.walk(self._root):
                with contextlib.suppress(OSError), os.scandir(folder) as entries:
                    for entry in entries:
                        size = _size_on_disk(entry)
                        if size is not None and entry.name not in published:
                            yield entry.name, size
            self._published = None

        return found()


def _size_on_disk(entry: os.DirEntry[str]) -> int | None:
    """Return a file's size in bytes as its blocks count, None if it is no file, or gone."""
    try:
        return entry.stat().st_blocks * 512 if entry.is_file() else None
    except OSError:
        return None


def sync(path: Path) -> None:
    """Have a file, or a folder's names, reach stable storage. Blocks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
