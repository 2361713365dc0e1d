"""Partial files: a blob on its way in, with a map of what is there that survives a kill."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from mirror.oci.digest import Digest
from mirror.store.content import Content
from mirror.store.segments import Segments

_MOST_PIECES = 512
_SMALL = 16 * 2**20


class _Map(msgspec.Struct, frozen=True):
    """What is written beside the data: valid only on the boot that wrote it, as a power loss may have lost data."""

    boot_id: str
    size: int | None
    spans: list[tuple[int, int]]


class Partial:
    """The growing file of one blob.

    `segments` says which bytes are there: readers are bounded by it, never by the file's size, as holes read as zeros.
    """

    def __init__(self, folder: Path, digest: Digest, origin: str, boot_id: str) -> None:
        """Open the partial file of `digest` as it comes from `origin`, with what an earlier run left of it.

        Raises:
            OSError: the disk is full or broken.
        """
        name = f"{digest.algorithm}-{digest.hex}-{origin}"
        self.digest = digest
        self.path = folder / f"{name}.data"
        self._map_path = folder / f"{name}.map"
        self._boot_id = boot_id
        self.size: int | None = None
        self.segments = self._recover()
        self.resumed = self.segments.total
        self._map = -1
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if self.resumed else os.O_TRUNC)
        self._descriptor = os.open(self.path, flags, 0o644)

    @property
    def is_open(self) -> bool:
        """Whether a fill has it."""
        return self._descriptor >= 0

    def write(self, offset: int, pieces: Sequence[bytes]) -> None:
        """Write `pieces` one behind the other from `offset` on, as `write_runs` does."""
        self.write_runs([(offset, pieces)])

    def write_runs(self, runs: Sequence[tuple[int, Sequence[bytes]]]) -> None:
        """Write runs of pieces, each from an offset on, and the map once; they count once `added` says so. Blocks.

        The map is there before any reader can see the bytes: what was shown is what a later run resumes from. One call
        at a time, or one map would lack what the other brought.

        Raises:
            OSError: the disk is full or broken.
        """
        spans = Segments(self.segments.spans)
        for offset, pieces in runs:
            spans.add(offset, self._write_run(offset, pieces))
        self.save(spans.spans)

    def _write_run(self, offset: int, pieces: Sequence[bytes]) -> int:
        """Write pieces one behind the other, and return the offset behind the last."""
        for first in range(0, len(pieces), _MOST_PIECES):
            batch = pieces[first : first + _MOST_PIECES]
            length = sum(map(len, batch))
            written = os.pwritev(self._descriptor, batch, offset)
            if written < length:
                rest = memoryview(b"".join(batch))[written:]
                while rest:
                    count = os.pwrite(self._descriptor, rest, offset + length - len(rest))
                    rest = rest[count:]
            offset += length
        return offset

    def added(self, start: int, end: int) -> None:
        """Count the bytes from `start` to `end` as there."""
        self.segments.add(start, end)

    def save(self, spans: list[tuple[int, int]]) -> None:
        """Save the map, in one small write that a kill cannot cut. Blocks.

        Raises:
            OSError: the disk is full or broken.
        """
        line = msgspec.json.encode(_Map(self._boot_id, self.size, spans)) + b"\n"
        if self._map < 0:
            self._map = os.open(self._map_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.pwrite(self._map, line, 0)

    def read(self, start: int, end: int) -> bytes:
        """Return bytes that are there. Blocks."""
        return os.pread(self._descriptor, end - start, start)

    def restart(self) -> None:
        """Forget every byte and begin anew, in another file: whoever reads the old one can tell. Blocks.

        Raises:
            OSError: the disk is full or broken.
        """
        # First of all: nobody who finds the new file is ever told the map of the old one.
        self.segments = Segments()
        self.resumed = 0
        self._map_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self.close()
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def publish(self, content: Content) -> None:
        """Give the complete, verified file its final name. Blocks.

        Raises:
            OSError: the disk is full or broken.
        """
        if self.size is not None:
            os.ftruncate(self._descriptor, self.size)
        content.publish(self.path, self.digest)
        self._map_path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Delete the file and its map, as far as the disk lets. Blocks."""
        for path in (self._map_path, self.path):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; what is there stays for a later run."""
        for descriptor in (self._descriptor, self._map):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._map = -1

    def _recover(self) -> Segments:
        found = _resumable(self._map_path, self.path, self._boot_id)
        if found is None:
            return Segments()
        self.size = found.size
        return Segments(found.spans)


def _resumable(map_path: Path, data: Path, boot_id: str) -> _Map | None:
    """Return what a map says that can be relied on; None if that is nothing."""
    try:
        found = msgspec.json.decode(map_path.read_bytes().partition(b"\n")[0], type=_Map)
        length = data.stat().st_size
    except (OSError, msgspec.DecodeError, ValueError):
        return None
    spans = [(max(0, start), min(end, length)) for start, end in found.spans]
    return msgspec.structs.replace(found, spans=spans) if found.boot_id == boot_id and spans else None


def clear_leftovers(folder: Path, boot_id: str, content: Content) -> int:
    """Bring the folder of partial files in order after a kill; return how many bytes are there of those that stay.

    Small ones that only lack their final name are given it. What cannot be resumed is deleted.
    """
    taken = 0
    kept = set()
    for path in folder.glob("*.map"):
        data = path.with_suffix(".data")
        found = _resumable(path, data, boot_id)
        if found is not None and not _publish_complete(data, found, content):
            kept |= {path, data}
            taken += Segments(found.spans).total
    for path in set(folder.iterdir()) - kept:
        with contextlib.suppress(OSError):
            path.unlink()
    return taken


class Leftover(NamedTuple):
    """A partial file that no fill has: how many bytes are there, and when the last came, in seconds since the epoch."""

    path: Path
    size: int
    changed: float

    @property
    def digest(self) -> Digest:
        """The digest that it was to have."""
        algorithm, name, _ = self.path.name.split("-", 2)
        return Digest.parse(f"{algorithm}:{name}")

    def remove(self) -> None:
        """Delete it. Blocks.

        Raises:
            OSError: the disk is broken or read-only.
        """
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".data").unlink(missing_ok=True)


def leftovers(folder: Path, boot_id: str, used: Collection[Path]) -> list[Leftover]:
    """Return the partial files that could be resumed, but for those whose data is `used`, oldest first. Blocks."""
    found = []
    for path in folder.glob("*.map"):
        data = path.with_suffix(".data")
        known = None if data in used else _resumable(path, data, boot_id)
        if known is not None:
            with contextlib.suppress(OSError):
                found.append(Leftover(path, Segments(known.spans).total, path.stat().st_mtime))
    return sorted(found, key=lambda each: each.changed)


def _publish_complete(data: Path, found: _Map, content: Content) -> bool:
    """Verify and publish a small file that is complete; False if it is not, or cannot be."""
    if found.size is None or found.size > _SMALL or Segments(found.spans).end_from(0) < found.size:
        return False
    try:
        digest = Digest.parse(":".join(data.stem.split("-")[:2]))
        os.truncate(data, found.size)
        is_right = Digest.of(data.read_bytes(), digest.algorithm) == digest
        if is_right:
            content.publish(data, digest)
    except (OSError, ValueError):
        return False
    return is_right
