"""What ended processes counted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from mirror.observe.metrics import Sample
from mirror.observe.tally import Tally, process_name


def sample(value: float, kind: str = "counter") -> Sample:
    return Sample("layover_requests", kind, "Requests.", "layover_requests_total", {"upstream": "docker.io"}, value)


def total(tally: Tally) -> float:
    return sum(each.value for group in tally.groups() for each in group)


def ended() -> str:
    """Return the name of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return f"{process.pid}-1"


def test_adds_up__doors_that_live_and_that_ended() -> None:
    tally = Tally()
    name = ended()
    for number in range(100):
        tally.put(f"{name}{number}", [sample(1.0)])
        tally.put(process_name() if number == 50 else f"{os.getpid()}-1", [sample(5.0)])
    assert total(tally) == 110
    assert len(tally.groups()) < 20


def test_keeps__counters_of_the_hub_that_ended_but_not_its_gauges(tmp_path: Path) -> None:
    first = Tally()
    first.put(f"{os.getpid()}-1", [sample(5.0)])
    first.save(tmp_path / "counters", [sample(2.0), sample(100.0, "gauge")])
    first.save(tmp_path / "counters", [sample(3.0), sample(100.0, "gauge")])
    second = Tally()
    second.load(tmp_path / "counters")
    assert total(second) == 8
    second.put(f"{os.getpid()}-1", [sample(6.0)])
    assert total(second) == 9
    second.save(tmp_path / "counters", [sample(1.0)])
    third = Tally()
    third.load(tmp_path / "counters")
    assert total(third) == 10


def test_starts_at_nothing__where_nothing_can_be_read(tmp_path: Path) -> None:
    tally = Tally()
    (tmp_path / "torn").write_bytes(b"\x81\xa3")
    for name in ("torn", "none"):
        tally.load(tmp_path / name)
    tally.save(tmp_path / "none" / "counters", [sample(1.0)])
    assert tally.groups() == []
