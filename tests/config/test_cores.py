"""How many cores count as this process's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mirror.config import usable_cores


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


@pytest.fixture(autouse=True)
def affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_counts__the_affinity(tmp_path: Path, own: Path) -> None:
    assert usable_cores(tmp_path / "none", own) == 16


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 16),
        ("150000 100000", 2),
        ("100000 100000", 1),
        ("1000 100000", 1),
        ("9999999 100000", 16),
        ("", 16),
    ],
)
def test_heeds__the_quota(tmp_path: Path, own: Path, quota: str, cores: int) -> None:
    put(own, "0::/\n")
    put(tmp_path / "fs" / "cpu.max", f"{quota}\n")
    assert usable_cores(tmp_path / "fs", own) == cores


def test_heeds__the_least_quota_of_those_above(tmp_path: Path, own: Path) -> None:
    put(own, "0::/system.slice/layover.service\n")
    put(tmp_path / "fs" / "system.slice" / "cpu.max", "300000 100000\n")
    put(tmp_path / "fs" / "system.slice" / "layover.service" / "cpu.max", "800000 100000\n")
    assert usable_cores(tmp_path / "fs", own) == 3


def test_heeds__the_quota_of_version_1(tmp_path: Path, own: Path) -> None:
    put(own, "7:memory:/a\n4:cpu,cpuacct:/docker/x\n0::/\n")
    folder = tmp_path / "fs" / "cpu,cpuacct"
    put(folder / "cpu.cfs_quota_us", "200000\n")
    put(folder / "cpu.cfs_period_us", "100000\n")
    put(folder / "docker" / "x" / "cpu.cfs_quota_us", "-1\n")
    put(folder / "docker" / "x" / "cpu.cfs_period_us", "100000\n")
    assert usable_cores(tmp_path / "fs", own) == 2
