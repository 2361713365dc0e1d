"""How much of the machine this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cores(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> int:
    """Return how many cores this process may use, by its affinity and by the quotas of its cgroup and those above."""
    try:
        cores = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return 1
    return max(1, math.ceil(min(cores, _quota(cgroups, own))))


def _quota(cgroups: Path, own: Path) -> float:
    """Return the least quota in cores; infinite if there is none, or none can be read."""
    quotas = [math.inf]
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in {"", "cpu", "cpu,cpuacct", "cpuacct,cpu"}:
            root = cgroups / controllers
            folder = root / path.lstrip("/")
            quotas += [_quota_of(each) for each in (folder, *folder.parents) if each.is_relative_to(root)]
    return min(quotas)


def _quota_of(folder: Path) -> float:
    words = _text(folder / "cpu.max").split() or [
        _text(folder / "cpu.cfs_quota_us").strip(),
        _text(folder / "cpu.cfs_period_us").strip(),
    ]
    try:
        quota, period = map(int, words)
    except ValueError:  # "max", or nothing
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
