"""A store with very many objects: how soon it is ready, what a manifest costs, and an index that is lost."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import servers
from tests.benchmarks.content import MIB
from tests.benchmarks.load import random_requests_per_second, requests_per_second
from tests.benchmarks.origin import Origin
from tests.benchmarks.processes import MemoryWatch, cpu_seconds
from tests.benchmarks.results import OURS, Result, Target
from tests.benchmarks.scale import Scale
from tests.benchmarks.servers import Server
from tests.store.large import images

FEW = 100
# Nothing expires while it is measured.
_SETTINGS = {"LAYOVER_SERVER__WORKERS": "2", "LAYOVER_FRESHNESS__TAG_TTL": "30d"}
# As much as before, within what two medians of the same differ by.
_AS_BEFORE = 1.25
_REBUILD_SECONDS = 300.0
_LOOK_SECONDS = 0.1
# The check of the index and the count of the content are over once so little is done.
_QUIET = 0.1
_QUIET_SECONDS = 60
# Of the images asked for, so that few are of one repository.
_APART = 7


class Costs(NamedTuple):
    """What a replica with so many objects costs.

    Seconds until ready, and of CPU time until then and until all is checked and counted; CPU µs of one manifest on and
    on, and of one of all at random, by tag and by digest; bytes of its processes.
    """

    ready: float
    ready_cpu: float
    by_tag: float
    by_digest: float
    memory: int
    checked_cpu: float
    at_random: tuple[float, float]


def objects(scale: Scale, folder: Path) -> list[Result]:
    """A replica with two doors over 200,000 objects: ready, warm manifests beside 100 objects, memory, a lost index."""
    count = scale.objects
    ready = Result(f"{count:,} objects, ready", "s", Target("below", 3.0))
    ready_cpu = Result(f"{count:,} objects, ready", "CPU s")
    checked_cpu = Result(f"{count:,} objects, ready, checked and counted", "CPU s")
    memory = Result(f"{count:,} objects, 2 doors, all processes", "MiB PSS", Target("below", 250.0))
    few = f"{FEW} objects"
    kinds = ("tag", "digest")
    costs = [Result(f"{count:,} objects, manifest by {kind}", "CPU µs each", Target("at most", _AS_BEFORE, few))
             for kind in kinds]  # fmt: skip
    at_random = [Result(f"{count:,} objects, a manifest at random by {kind}", "CPU µs each") for kind in kinds]
    with Origin({}) as origin:
        places = {number: stocked(folder / str(number), number) for number in (FEW, count)}
        for _ in range(scale.rounds):
            for number, place in places.items():
                measured = measure(origin.url, place, number, scale)
                values = (measured.by_tag, measured.by_digest, *measured.at_random)
                for result, value in zip([*costs, *at_random], values, strict=True):
                    result.add(OURS if number == count else few, value)
                if number == count:
                    ready.add(OURS, measured.ready)
                    ready_cpu.add(OURS, measured.ready_cpu)
                    checked_cpu.add(OURS, measured.checked_cpu)
                    memory.add(OURS, measured.memory / MIB)
        return [ready, ready_cpu, checked_cpu, *costs, *at_random, memory, *_rebuilt(origin.url, places[count], count)]


def stocked(place: Path, count: int) -> Path:
    """Lay down a store with so many objects where a replica in `place` looks for it, and return `place`."""
    place.mkdir()
    command = (sys.executable, "-m", "tests.store.large", str(place / "layover"), str(count))
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return place


def measure(upstream: str, place: Path, count: int, scale: Scale) -> Costs:
    """Start a replica over the store in `place` and load it with requests for a manifest."""
    by_tag, by_digest = _some_image(count)
    every = list(zip(*(image.paths for image in images(count)), strict=True))
    began = time.monotonic()
    with servers.layover(upstream, place, _SETTINGS) as server:
        ready, ready_cpu = time.monotonic() - began, cpu_seconds(server.pid)
        with MemoryWatch(server.pid) as watch:
            checked_cpu = _cpu_until_quiet(server)
            _, tag = requests_per_second(server, by_tag, scale.load_seconds)
            _, digest = requests_per_second(server, by_digest, scale.load_seconds)
            costs = [random_requests_per_second(server, paths, scale.load_seconds)[1] for paths in every]
    return Costs(ready, ready_cpu, tag, digest, watch.peak, checked_cpu, (costs[0], costs[1]))


def _cpu_until_quiet(server: Server) -> float:
    """Wait until what a start leaves to do is done, and return the CPU seconds that it took in all."""
    used = cpu_seconds(server.pid)
    for _ in range(_QUIET_SECONDS):
        time.sleep(1)
        before, used = used, cpu_seconds(server.pid)
        if used - before < _QUIET:
            return used
    raise RuntimeError("the replica does not come to rest")


def _rebuilt(upstream: str, place: Path, count: int) -> list[Result]:
    """Remove the index, start, and wait until it has as many rows as before, asking for a manifest all along."""
    rebuilt = Result(f"{count:,} objects, index lost, rebuilt in", "s", Target("at most", 60.0))
    slowest = Result(f"{count:,} objects, index lost, slowest manifest meanwhile", "s")
    wanted = _rows(place)
    shutil.rmtree(place / "layover" / "index")
    began = time.monotonic()
    with servers.layover(upstream, place, _SETTINGS) as server:
        slowest.notes.append(f"ready after {time.monotonic() - began:.1f} s")
        times = list(_served_until(server, place, wanted, count))
    rebuilt.add(OURS, time.monotonic() - began)
    slowest.add(OURS, max(times))
    slowest.notes.append(f"{len(times)} manifests served meanwhile")
    return [rebuilt, slowest]


def _served_until(server: Server, place: Path, wanted: int, count: int) -> Iterator[float]:
    """Yield how long one manifest after the other takes, until the index has the rows wanted."""
    end = time.monotonic() + _REBUILD_SECONDS
    for image in islice(images(count), 0, None, _APART):
        asked = time.monotonic()
        with urllib.request.urlopen(server.url + image.paths[0], timeout=60):
            yield time.monotonic() - asked
        if _rows(place) >= wanted:
            return
        if asked > end:
            break
        time.sleep(_LOOK_SECONDS)
    raise RuntimeError(f"the index has {_rows(place)} rows of {wanted}")


def _rows(place: Path) -> int:
    total = 0
    for path in (place / "layover" / "index").glob("*/cache.db"):
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database,
        ):
            total += int(database.execute("SELECT COUNT(*) FROM Cache").fetchone()[0])
    return total


def _some_image(count: int) -> tuple[str, str]:
    """Return the paths of a manifest in the middle of a store, by tag and by digest."""
    return next(islice(images(count), count // 8, None)).paths
