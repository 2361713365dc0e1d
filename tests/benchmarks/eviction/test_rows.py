"""The claims about eviction on small traces, and that the references are what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import libcachesim
import pytest

from mirror.eviction.popularity import Popularity
from tests.benchmarks.eviction import fleet
from tests.benchmarks.eviction.disk import BATCHES, JUST_ENOUGH, Disk, Marks, replay
from tests.benchmarks.eviction.recording import read
from tests.benchmarks.eviction.references import REFERENCES, by_libcachesim, lfu_da
from tests.benchmarks.eviction.rows import LEAST_OF_BEST, OURS, Row, broken_claims, measure
from tests.benchmarks.eviction.traces import FAMILIES, Request, Trace, generate

SCALE = 0.1
SIZES = (0.1, 0.25)


def rows_of(family: str) -> list[Row]:
    return list(measure(generate(family, 3, SCALE), 3, SIZES))


def gain(rows: list[Row]) -> float:
    """Return how far ours is above LRU: of so small a trace only the mean tells anything."""
    return sum(row.over_lru for row in rows) / len(rows)


@pytest.mark.parametrize(("family", "least"), [("zipf", 0.04), ("ci", -0.005), ("nightly", 0.04), ("floods", 0.03)])
def test_finds_more_than_lru__and_nearly_as_much_as_the_best(family: str, least: float) -> None:
    rows = rows_of(family)
    assert gain(rows) > least
    assert sum(row.of_best for row in rows) / len(rows) > LEAST_OF_BEST


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_finds_hardly_more_than_lru__by_the_last_use_alone(monkeypatch: pytest.MonkeyPatch, sign: float) -> None:
    monkeypatch.setattr("mirror.eviction.plan.score", lambda size, popularity, idle: sign * idle)
    assert gain(rows_of("nightly")) < 0.02


def test_makes_the_same_trace__from_the_same_seed() -> None:
    one, same, other = (generate("zipf", seed, 0.02).requests for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize("family", FAMILIES)
def test_asks_for_manifests_before_layers__and_for_each_object_in_one_size(family: str) -> None:
    trace = generate(family, 1, 0.02)
    sizes: dict[int, int] = {}
    for request in trace.requests:
        assert sizes.setdefault(request.key, request.size) == request.size
    assert [request.at for request in trace.requests] == sorted(request.at for request in trace.requests)
    assert trace.working_set < trace.bytes / 2


def test_finds_nearly_the_same_as_libcachesim__by_its_own_lfu_da() -> None:
    trace = generate("floods", 1, 0.06)
    theirs = by_libcachesim(libcachesim.LFUDA)
    for size in SIZES:
        capacity = trace.working_set * size
        assert lfu_da(trace, capacity) == pytest.approx(theirs(trace, capacity), abs=0.02)


def test_finds_all__where_the_disk_is_large_enough() -> None:
    trace = generate("zipf", 1, 0.02)
    for marks in (JUST_ENOUGH, BATCHES):
        assert replay(trace, trace.working_set * 1.2, marks) == pytest.approx(1 - trace.working_set / trace.bytes)


@pytest.mark.parametrize(("marks", "least"), [(JUST_ENOUGH, 0.94), (BATCHES, 0.87)])
def test_never_holds_more_than_the_disk__and_hardly_less_than_it_may(marks: Marks, least: float) -> None:
    trace = generate("zipf", 1, 0.02)
    disk, held = Disk(trace.working_set * 0.5, trace.digests, Popularity(), marks), []
    for request in trace.requests:
        disk.request(request)
        held.append(disk.used / disk.capacity)
    assert max(held) <= marks.begin
    assert sum(held[-1000:]) / 1000 > least


def test_fetches_less__as_a_fleet_than_apart() -> None:
    trace = generate("zipf", 1, 0.04)
    apart, together = (answer(trace, trace.working_set * 0.15) for answer in (fleet.apart, fleet.together))
    assert together.upstream < 0.6 * apart.upstream
    assert together.local + together.region + together.elsewhere + together.upstream == trace.bytes


def test_says_what_does_not_hold() -> None:
    even = dict.fromkeys(REFERENCES, 0.5)
    assert broken_claims([Row("zipf", 1, 0.1, 100, {**even, OURS: 0.6})]) == []
    broken = broken_claims([Row("zipf", 1, 0.1, 100, {**even, "SIEVE": 0.6, OURS: 0.49})])
    assert [text.split(": ")[-1] for text in broken] == [
        "-1.00 points of LRU",
        "81.7% of the best",
        "on average -1.00 points of LRU",
    ]


def test_replays_a_file__that_is_named(tmp_path: Path) -> None:
    random, path, told = Random(1), tmp_path / "pulls.txt", tmp_path / "told.json"
    lines = [f"{second} layer-{random.randrange(40)} 1000 node-{random.randrange(9)}" for second in range(500)]
    path.write_text("# seconds object bytes client\n" + "\n".join(lines))
    command = [sys.executable, "-m", "tests.benchmarks.eviction", "--trace", str(path), "--sizes", "0.5"]
    command += ["--json", str(told)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=100).stdout
    assert "pulls" in printed
    [row] = json.loads(told.read_text())["replica"]
    assert row["requested"] == 500_000
    assert row["upstream_bytes"][OURS] == pytest.approx(500_000 * (1 - row["ratios"][OURS]), abs=1)


@pytest.mark.parametrize("text", ["", "1 layer", "soon layer 5", "1 layer many"])
def test_refuses_a_file__that_is_no_trace(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pulls.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"pulls\.txt"):
        read(path)


def test_reads_commas_and_any_order(tmp_path: Path) -> None:
    path = tmp_path / "pulls.csv"
    path.write_text("20,b,7\n10,a,5\n")
    trace: Trace = read(path)
    assert [(request.key, request.size) for request in trace.requests] == [(1, 5), (0, 7)]
    assert isinstance(trace.requests[0], Request)
