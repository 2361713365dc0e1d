"""The journal: everything that the content does not tell, as checksummed lines that are only ever appended."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from mirror.store.content import sync
from mirror.store.records import (
    Carried,
    Entry,
    Judged,
    Linked,
    Ordered,
    TagDropped,
    TagSet,
    Unlinked,
    link_key,
    revive,
    tag_key,
    verdict_key,
)

_COMPACT_ABOVE = 4 * 2**20
_GROWTH = 2
_CHECKSUM_BYTES = 9
_KEY_BYTES = 16
_PIECE_BYTES = 4 * 2**20


class _Header(msgspec.Struct, frozen=True):
    """The first line: `replaces` is the end of the journal that this one says the same as up to `compacted_bytes`."""

    identity: str
    compacted_bytes: int
    replaces: str = ""


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
        self._decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry, dec_hook=revive)
        header = self._read_header()
        if header is None:
            header = self._rewrite(tuple)
        self._header = header
        self._file = path.open("r+b", buffering=0)
        self._trim()

    @property
    def end(self) -> Position:
        """The position behind the last entry."""
        return self.position(self._file.seek(0, os.SEEK_END))

    def position(self, offset: int) -> Position:
        """Return the position of an offset here."""
        return Position(self._header.identity, offset)

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
        return self.position(end + len(lines))

    def locate(self, position: Position | None) -> int | None:
        """Return the offset here of a position, None if it is of another journal or behind the end."""
        if position is None:
            return None
        if str(position) == self._header.replaces:
            return len(_line(msgspec.json.encode(self._header))) + self._header.compacted_bytes
        is_here = position.identity == self._header.identity and position.offset <= self.end.offset
        return position.offset if is_here else None

    def replay(self, since: Position | None) -> Iterator[Entry]:
        """Yield the entries after `since`, or all if it is None or of another journal; damaged lines are left out."""
        for _, entry in self.entries(self.locate(since) or 0):
            yield entry

    def entries(self, start: int = 0) -> Iterator[tuple[int, Entry]]:
        """Yield the entries from an offset on, each with the offset behind it; damaged lines are left out."""
        for offset, line in self._lines(start):
            entry = self._entry(line)
            if entry is not None:
                yield offset + len(line), entry

    def entries_of(self, repository: str) -> Iterator[Entry]:
        """Yield the entries of one repository, found without reading the others."""
        for entry in self._entries_with(b'"repository":' + msgspec.json.encode(repository)):
            if not isinstance(entry, Ordered) and entry.repository == repository:
                yield entry

    def orders(self) -> dict[str, Carried]:
        """Return the orders that were carried out by their keys, found without reading the other entries."""
        found: dict[str, Carried] = {}
        for entry in self._entries_with(b'"type":"order"'):
            if isinstance(entry, Ordered):
                found.pop(entry.key, None)
                if entry.order is not None:
                    found[entry.key] = entry.order
        return found

    def _entries_with(self, needle: bytes) -> Iterator[Entry]:
        """Yield the entries whose lines have some text in them."""
        # In few pieces: behind each read this thread waits for its turn among the others again.
        piece, held = bytearray(_PIECE_BYTES), 0
        with self._path.open("rb", buffering=0) as file:
            while count := file.readinto(memoryview(piece)[held:]):
                stop = piece.rfind(b"\n", 0, held + count) + 1
                at = piece.find(needle, 0, stop)
                while at >= 0:
                    end = piece.index(b"\n", at) + 1
                    line = bytes(piece[piece.rfind(b"\n", 0, at) + 1 : end])
                    entry = None if _payload(line) is None else self._entry(line)
                    if entry is not None:
                        yield entry
                    at = piece.find(needle, end, stop)
                rest = piece[stop : held + count]
                # No line is as long as a piece, but damage may look like one.
                held = len(rest) % _PIECE_BYTES
                piece[:held] = rest[:held]

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
        last, merged = self._survey()
        kept = set(last.values())

        def lines() -> Iterator[bytes]:
            for offset, line in self._lines(0):
                if offset in kept:
                    yield line
            for entry in merged.values():
                yield _line(_encode(entry))

        self._header = self._rewrite(lines, replaces=str(self.end))
        self._file.close()
        self._file = self._path.open("r+b", buffering=0)

    def _survey(self) -> tuple[dict[bytes, int], dict[bytes, Linked]]:
        """Return where the last entry of each key stands, and of links that stand in several places what they make.

        Keys are hashed and entries left where they are: there may be a million.
        """
        last: dict[bytes, int] = {}
        merged: dict[bytes, Linked] = {}
        for offset, line in self._lines(0):
            entry = self._entry(line)
            if entry is None:
                continue
            if isinstance(entry, Unlinked):
                for digest in entry.digests:
                    dropped = _hashed(link_key(entry.repository, digest))
                    last.pop(dropped, None)
                    merged.pop(dropped, None)
                continue
            key = _key(entry)
            if isinstance(entry, TagDropped) or (isinstance(entry, Ordered) and entry.order is None):
                last.pop(key, None)
            elif isinstance(entry, Linked) and (key in last or key in merged):
                known = merged.get(key) or self._entry_at(last.pop(key))
                link = entry.link.merged(known.link) if isinstance(known, Linked) else entry.link
                merged[key] = msgspec.structs.replace(entry, link=link)
            else:
                last[key] = offset
        return last, merged

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

    def _rewrite(self, lines: Callable[[], Iterable[bytes]], replaces: str = "") -> _Header:
        fresh = self._path.with_name(f"{self._path.name}.new")
        header = _Header(uuid.uuid4().hex, sum(map(len, lines())), replaces)
        with fresh.open("wb") as file:
            file.write(_line(msgspec.json.encode(header)))
            file.writelines(lines())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        sync(self._path.parent)
        return header

    def _lines(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield the lines from an offset on that are not damaged, each with its offset."""
        with self._path.open("rb") as file:
            file.seek(start)
            for line in file:
                if _payload(line) is not None:
                    yield start, line
                start += len(line)

    def _entry(self, line: bytes) -> Entry | None:
        try:
            return self._decoder.decode(memoryview(line)[_CHECKSUM_BYTES:-1])
        except (msgspec.DecodeError, ValueError):
            return None

    def _entry_at(self, offset: int) -> Entry | None:
        with self._path.open("rb") as file:
            file.seek(offset)
            return self._entry(file.readline())

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


def _key(entry: TagSet | TagDropped | Linked | Judged | Ordered) -> bytes:
    """Return what later entries replace an earlier one by."""
    match entry:
        case Linked():
            return _hashed(link_key(entry.repository, entry.digest))
        case Judged():
            return _hashed(verdict_key(entry.repository))
        case Ordered():
            return _hashed(entry.key)
        case _:
            return _hashed(tag_key(entry.repository, entry.name))


def _hashed(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=_KEY_BYTES).digest()


def _line(payload: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(payload), payload)


def _payload(line: bytes) -> bytes | None:
    checksum, _, rest = line.partition(b" ")
    payload = rest.removesuffix(b"\n")
    return payload if rest.endswith(b"\n") and checksum == b"%08x" % zlib.crc32(payload) else None
