"""What a tree of processes costs, read from /proc."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE_SECONDS = 0.25


def tree(root: int) -> list[int]:
    """Return a process and all its descendants that run now."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            fields = _stat(int(entry.name))
            if fields:
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += parents.get(pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """Return the CPU time that a tree has used so far, in user and kernel mode, its ended children included."""
    return sum(sum(map(int, fields[11:15])) for pid in tree(root) if (fields := _stat(pid))) / _TICKS


def proportional_bytes(root: int) -> int:
    """Return the proportional set sizes (PSS) of a tree's processes, summed."""
    return sum(process_bytes(root))


def process_bytes(root: int) -> list[int]:
    """Return the proportional set size of each of a tree's processes."""
    sizes = []
    for pid in tree(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it has just ended
        sizes.append(sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")))
    return sizes


class MemoryWatch:
    """Samples the PSS of a tree while its context lasts.

    `peak` is the highest sum in bytes, `peak_process` the most that any one of its processes had.
    """

    def __init__(self, root: int) -> None:
        self.peak = self.peak_process = 0
        self._root = root
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory-watch", daemon=True)

    def _sample(self) -> None:
        while not self._end.wait(_SAMPLE_SECONDS):
            self._take()

    def _take(self) -> None:
        sizes = process_bytes(self._root)
        self.peak = max(self.peak, sum(sizes))
        self.peak_process = max(self.peak_process, *sizes, 0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        self._take()


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat behind the name, or none when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
