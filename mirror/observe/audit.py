"""The audit trail of evictions: what went, why, and who kept a copy. JSON lines in a file, older ones in another."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from mirror.observe.metrics import HubMetrics
from mirror.oci.digest import Digest

# Closed: it labels metrics. `pressure`: for want of room; `unused`: by `unused_for`; `abandoned`: a partial file that
# no fill resumed; `purge`: by order.
Reason = Literal["pressure", "unused", "abandoned", "purge"]
REASONS: tuple[Reason, ...] = ("pressure", "unused", "abandoned", "purge")
_MOST_BYTES = 8 * 2**20


class Evicted(msgspec.Struct, frozen=True):
    """One eviction, `at` seconds since the epoch, of a digest that took `size` bytes.

    `score`, `popularity` and `idle` seconds are what the policy saw. `copies` other live replicas have it still, None
    where nobody could be asked; `keeper` is the identity of the one that promised to keep it. `was_last_copy` says that
    none was left, and `spares` how many digests that others have too could have gone from this store instead.
    """

    at: float
    digest: str
    size: int
    reason: Reason
    score: float | None = None
    popularity: float | None = None
    idle: float | None = None
    copies: int | None = None
    keeper: str | None = None
    was_last_copy: bool | None = None
    spares: int | None = None


class Evictions:
    """Counts evictions, writes them down, and finds them again."""

    def __init__(self, path: Path, metrics: HubMetrics) -> None:
        """Write to the file at `path`, which gives way to a new one as `<path>.1` before it becomes too long."""
        self._path = path
        self._older = path.with_name(f"{path.name}.1")
        self._metrics = metrics
        self._lock = threading.Lock()
        self._log = structlog.get_logger("layover.eviction")
        for reason in REASONS:
            metrics.evictions.labels(reason)
            metrics.evicted_bytes.labels(reason)

    def record(self, evicted: Sequence[Evicted]) -> None:
        """Count evictions and write them down, unless the disk is full. Blocks."""
        for each in evicted:
            self._metrics.evictions.labels(each.reason).inc()
            self._metrics.evicted_bytes.labels(each.reason).inc(each.size)
        lines = b"".join(msgspec.json.encode(each, enc_hook=str) + b"\n" for each in evicted)
        try:
            with self._lock:
                self._append(lines)
        except OSError as error:
            self._log.error("evictions cannot be written down", error=str(error), count=len(evicted))

    def purged(self, freed: Mapping[Digest, int]) -> None:
        """Count and write down what went by order, with the bytes that it took. Blocks."""
        self.record([Evicted(time.time(), digest, size, "purge") for digest, size in freed.items()])

    def last(self, digest: Digest) -> Evicted | None:
        """Return how a digest was evicted the last time, None if that is not known any more. Blocks."""
        wanted = f'"{digest}"'.encode()
        with self._lock:
            for path in (self._path, self._older):
                found = _last_line(path, wanted)
                if found is not None:
                    return found
        return None

    def _append(self, lines: bytes) -> None:
        if self._path.exists() and self._path.stat().st_size + len(lines) > _MOST_BYTES:
            self._path.replace(self._older)
        with self._path.open("ab") as file:
            file.write(lines)


def _last_line(path: Path, wanted: bytes) -> Evicted | None:
    found = None
    try:
        with path.open("rb") as file:
            for line in file:
                if wanted in line:
                    found = msgspec.json.decode(line, type=Evicted)
    except (OSError, msgspec.DecodeError):
        pass
    return found
