"""What the processes of a replica counted, those too that have ended: a sum that was shown never goes backwards."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from mirror.observe.metrics import Sample

# What a process of the past counted counts; how it stood does not.
_LASTING = frozenset({"counter", "histogram"})
_MOST_GROUPS = 16
_ENDED = ""


def process_name() -> str:
    """Return a name for this process that no other of the machine ever has."""
    return f"{os.getpid()}-{time.time_ns()}"


class Tally:
    """Samples by the process that counted them, kept in a file for the process that comes after this one."""

    def __init__(self) -> None:
        self._own_name = process_name()
        self._groups: dict[str, Sequence[Sample]] = {}
        self._saved = b""
        self._lock = threading.Lock()

    def put(self, process: str, samples: Sequence[Sample]) -> None:
        """Take what a process counted so far."""
        with self._lock:
            self._groups[process] = samples
            if len(self._groups) > _MOST_GROUPS:
                self._fold()

    def groups(self) -> list[Sequence[Sample]]:
        """Return the samples of each process but this one."""
        with self._lock:
            return list(self._groups.values())

    def save(self, file: Path, own: Iterable[Sample]) -> None:
        """Keep everything, with this process's `own` samples, for whoever takes its place. Blocks; any thread."""
        lasting = [each for each in own if each.kind in _LASTING]
        with self._lock:
            data = msgspec.msgpack.encode({**self._groups, self._own_name: lasting})
            if data == self._saved:
                return
            fresh = file.with_name(f"{file.name}.new")
            with contextlib.suppress(OSError):  # a full disk must not cost the answer; the next time it is kept
                fresh.write_bytes(data)
                fresh.replace(file)
                self._saved = data

    def load(self, file: Path) -> None:
        """Take what an earlier process kept. Blocks."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            kept = msgspec.msgpack.decode(file.read_bytes(), type=dict[str, list[Sample]])
            with self._lock:
                self._groups = {**kept, **self._groups}

    def _fold(self) -> None:
        """Make one group of those whose process has ended."""
        ended = [name for name in self._groups if name == _ENDED or not _is_alive(name)]
        sums: dict[tuple[str, tuple[tuple[str, str], ...]], Sample] = {}
        for name in ended:
            for each in self._groups.pop(name):
                key = each.name, tuple(each.labels.items())
                known = sums.get(key)
                sums[key] = each if known is None else each._replace(value=known.value + each.value)
        self._groups[_ENDED] = list(sums.values())


def _is_alive(name: str) -> bool:
    """Tell whether a process may still be there; another that has its number by now only delays the folding."""
    try:
        os.kill(int(name.partition("-")[0]), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:
        return True
    return True
