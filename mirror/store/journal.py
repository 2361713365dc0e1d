"""The journal: everything that the content does not tell, as checksummed lines that are only ever appended."""

from __future__ import annotations

import contextlib
import os
import uuid
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from mirror.store.content import sync
from mirror.store.records import Entry, Judged, Linked, TagDropped, revive

_COMPACT_ABOVE = 4 * 2**20
_GROWTH = 2


class _Header(msgspec.Struct, frozen=True):
    identity: str
    compacted_bytes: int


class Position(NamedTuple):
    """A place in one journal; another identity means that the journal was rewritten since."""

    identity: str
    offset: int

    def __str__(self) -> str:
        return f"{self.identity}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """Return the position that `str()` gave, None if `text` is none."""
        identity, _, offset = text.partition(":")
        return cls(identity, int(offset)) if offset.isdecimal() else None


class Journal:
    """One file; used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open the journal, making it if there is none, and cut a torn last line off.

        Raises:
            OSError: the file cannot be read or written.
        """
        self._path = path
        header = self._read_header()
        if header is None:
            header = self._rewrite(())
        self._header = header
        self._file = path.open("r+b", buffering=0)
        self._trim()

    @property
    def end(self) -> Position:
        """The position behind the last entry."""
        return Position(self._header.identity, self._file.seek(0, os.SEEK_END))

    def append(self, entries: Iterable[Entry]) -> Position:
        """Write entries to stable storage and return the position behind them.

        Raises:
            OSError: they could not be written; the journal is as before.
        """
        end = self._file.seek(0, os.SEEK_END)
        lines = b"".join(_line(_encode(entry)) for entry in entries)
        try:
            written = 0
            while written < len(lines):
                written += self._file.write(lines[written:]) or 0
            os.fdatasync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise
        return Position(self._header.identity, end + len(lines))

    def replay(self, since: Position | None) -> Iterator[Entry]:
        """Yield the entries after `since`, or all if it is None or of another journal; damaged lines are left out."""
        start = since.offset if since is not None and since.identity == self._header.identity else 0
        with self._path.open("rb") as file:
            file.seek(start)
            for line in file:
                payload = _payload(line)
                if payload is None:
                    continue
                try:
                    yield msgspec.json.decode(payload, type=Entry, dec_hook=revive)
                except (msgspec.DecodeError, ValueError):
                    continue

    @property
    def wants_compaction(self) -> bool:
        """Whether most of it may be entries that later ones replaced."""
        size = self._file.seek(0, os.SEEK_END)
        return size > max(_COMPACT_ABOVE, _GROWTH * self._header.compacted_bytes)

    def compact(self) -> None:
        """Rewrite the journal with the last entry of each kind and key alone.

        Raises:
            OSError: the disk is full or broken; the journal is as before.
        """
        last: dict[tuple[str, str], Entry] = {}
        for entry in self.replay(None):
            if not isinstance(entry, Linked):
                last[entry.repository, "" if isinstance(entry, Judged) else f":{entry.name}"] = entry
                continue
            key = (entry.repository, f"@{entry.digest}")
            known = last.get(key)
            link = entry.link.merged(known.link) if isinstance(known, Linked) else entry.link
            last[key] = msgspec.structs.replace(entry, link=link)
        self._header = self._rewrite(entry for entry in last.values() if not isinstance(entry, TagDropped))
        self._file.close()
        self._file = self._path.open("r+b", buffering=0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_header(self) -> _Header | None:
        try:
            with self._path.open("rb") as file:
                payload = _payload(file.readline())
        except FileNotFoundError:
            return None
        try:
            # A damaged first line costs only the identity: the entries behind it are kept.
            return _Header("damaged", 0) if payload is None else msgspec.json.decode(payload, type=_Header)
        except (msgspec.DecodeError, ValueError):
            return _Header("damaged", 0)

    def _rewrite(self, entries: Iterable[Entry]) -> _Header:
        fresh = self._path.with_name(f"{self._path.name}.new")
        body = [_line(_encode(entry)) for entry in entries]
        header = _Header(uuid.uuid4().hex, sum(map(len, body)))
        with fresh.open("wb") as file:
            file.write(_line(msgspec.json.encode(header)))
            file.writelines(body)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        sync(self._path.parent)
        return header

    def _trim(self) -> None:
        """Cut what stands behind the last line end: a torn line must not swallow the next entry."""
        end = self._file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            self._file.seek(start)
            newline = self._file.read(end - start).rfind(b"\n")
            if newline >= 0:
                self._file.truncate(start + newline + 1)
                return
            end = start
        self._file.truncate(0)


def _encode(entry: Entry) -> bytes:
    return msgspec.json.encode(entry, enc_hook=str)


def _line(payload: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(payload), payload)


def _payload(line: bytes) -> bytes | None:
    checksum, _, rest = line.partition(b" ")
    payload = rest.removesuffix(b"\n")
    return payload if rest.endswith(b"\n") and checksum == b"%08x" % zlib.crc32(payload) else None
