"""The ghost's advice, beside what the simulator finds for the same requests."""

from __future__ import annotations

import tracemalloc

import pytest

from mirror.eviction.ghost import Advice, Ghost
from mirror.eviction.popularity import Popularity
from mirror.oci.digest import Digest
from tests.benchmarks.eviction.disk import BATCHES, replay
from tests.benchmarks.eviction.traces import FAMILIES, Trace, generate

WITHIN = 0.03
NOW = 1_800_000_000.0
MiB = 2**20


def digest(number: int) -> Digest:
    return Digest.of(str(number).encode())


def advice(trace: Trace, capacity: float) -> Advice:
    """Return what a ghost says that sees the requests of a trace."""
    popularity = Popularity()
    ghost = Ghost(int(capacity), BATCHES.end, popularity)
    for request in trace.requests:
        popularity.note(trace.digests[request.key], request.at)
        ghost.request(trace.digests[request.key], request.size, request.at)
    return ghost.advice()


@pytest.mark.parametrize("size", [0.2])
@pytest.mark.parametrize("family", FAMILIES)
def test_finds_what_the_simulator_finds__within_3_points(family: str, size: float) -> None:
    trace = generate(family, seed=11, scale=0.06)
    capacity = trace.working_set * size
    found = advice(trace, capacity)
    assert found.requested == trace.bytes
    assert found.half == pytest.approx(replay(trace, capacity / 2, BATCHES), abs=WITHIN)
    assert found.same == pytest.approx(replay(trace, capacity, BATCHES), abs=WITHIN)
    assert found.double == pytest.approx(replay(trace, capacity * 2, BATCHES), abs=WITHIN)


def test_says_nothing__before_anything_was_asked_for() -> None:
    assert Ghost(1000, BATCHES.end, Popularity()).advice() == Advice()


def test_finds_hits__in_what_the_disk_held_from_the_start() -> None:
    ghost = Ghost(100 * MiB, BATCHES.end, Popularity())
    ghost.begin((digest(number), MiB, NOW) for number in range(40))
    for number in range(40):
        ghost.request(digest(number), MiB, NOW + number)
    assert ghost.advice() == Advice(40 * MiB, 1.0, 1.0, 1.0)


def test_counts_every_time__that_something_was_asked_for() -> None:
    ghost = Ghost(100 * MiB, BATCHES.end, Popularity())
    ghost.request(digest(1), MiB, NOW, times=4)
    assert ghost.advice() == Advice(4 * MiB, 0.75, 0.75, 0.75)


def test_stays_under_2_mib__however_much_is_asked_for() -> None:
    popularity = Popularity()
    tracemalloc.start()
    try:
        ghost = Ghost(10**12, BATCHES.end, popularity)
        for number in range(10_000):
            ghost.request(digest(number), 500 * MiB, NOW + number)
        assert tracemalloc.get_traced_memory()[1] < 2 * MiB
    finally:
        tracemalloc.stop()
