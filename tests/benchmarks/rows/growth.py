"""How cost grows: with clients, with a blob's size, with objects, with doors."""

from __future__ import annotations

import time
from pathlib import Path

from tests.benchmarks.clients import pull
from tests.benchmarks.content import MIB
from tests.benchmarks.load import requests_per_second
from tests.benchmarks.origin import Origin
from tests.benchmarks.processes import MemoryWatch, cpu_seconds
from tests.benchmarks.readers import Downloads
from tests.benchmarks.results import OURS, Result
from tests.benchmarks.rows.stock import measure, stocked
from tests.benchmarks.scale import Scale
from tests.benchmarks.servers import installed
from tests.benchmarks.turns import alone, turns

_CLIENTS = (1, 10, 50, 100, 200)
_BLOBS = (1, 16, 256, 1024, 4096)
_OBJECTS = (1_000, 10_000, 50_000, 200_000)
_DOORS = (1, 2, 3, 4)
_GIB = 2**30
_READERS = 4
_PATIENCE = 600.0


def clients(scale: Scale, folder: Path) -> list[Result]:
    """From 1 to 200 clients pull a cold image of 64 MiB at once; the registry is near."""
    results = []
    with Origin({"cold": scale.layers(32, 20, 12)}) as origin:
        size = origin.images["cold"].size
        for count in _CLIENTS:
            wall, cpu, memory = _results(
                f"clients: {count}, cold {size // MIB} MiB", "s", "CPU s/GiB served", "MiB PSS"
            )
            for name in turns(_names(scale), scale.rounds):
                with alone(name, origin.url, folder) as server, MemoryWatch(server.pid) as watch:
                    before = cpu_seconds(server.pid)
                    crowd = pull(server.url, "cold", count, patience=_PATIENCE)
                    used = cpu_seconds(server.pid) - before
                if crowd.failed:
                    wall.fail(name, crowd.failed[0])
                wall.add(name, crowd.seconds)
                cpu.add(name, used / (count * size / _GIB))
                memory.add(name, watch.peak / MIB)
            results += [wall, cpu, memory]
    return results


def blobs(scale: Scale, folder: Path) -> list[Result]:
    """One client pulls a cold blob from 1 MiB to 4 GiB, then four pull it warm again and again."""
    results = []
    for size in scale.layers(*_BLOBS):
        wall, cold, warm, memory = _results(
            f"blob: {size // MIB:,} MiB", "s cold", "CPU s cold", "CPU s/GiB warm", "MiB PSS"
        )
        with Origin({"cold": [size]}) as origin:
            for name in turns(_names(scale), scale.rounds):
                with alone(name, origin.url, folder) as server, MemoryWatch(server.pid) as watch:
                    before = cpu_seconds(server.pid)
                    wall.add(name, pull(server.url, "cold", patience=_PATIENCE).seconds)
                    cold.add(name, cpu_seconds(server.pid) - before)
                    before = cpu_seconds(server.pid)
                    with Downloads(server.url + origin.layer_path("cold"), _READERS) as downloads:
                        time.sleep(scale.load_seconds)
                    warm.add(name, (cpu_seconds(server.pid) - before) / (downloads.result.received / _GIB))
                memory.add(name, watch.peak / MIB)
        results += [wall, cold, warm, memory]
    return results


def objects(scale: Scale, folder: Path) -> list[Result]:
    """A replica with two doors over stores of 1,000 to 200,000 objects."""
    results = []
    with Origin({}) as origin:
        for count in (number for number in _OBJECTS if number <= scale.objects):
            made = _results(
                f"objects: {count:,}", "s to ready", "CPU s to ready", "CPU µs by tag", "CPU µs by digest", "MiB PSS"
            )
            place = stocked(folder / str(count), count)
            for _ in range(scale.rounds):
                costs = measure(origin.url, place, count, scale)
                values = (*costs[:4], costs.memory / MIB)
                for result, value in zip(made, values, strict=True):
                    result.add(OURS, value)
            results += made
    return results


def doors(scale: Scale, folder: Path) -> list[Result]:
    """One to four doors answer a warm manifest by digest, and send a warm blob to four readers."""
    results = []
    with Origin({"held": scale.layers(256)}) as origin:
        for count in _DOORS:
            speed, cost, moved, memory = made = _results(
                f"doors: {count}", "manifests/s", "CPU µs each", "MiB/s of blobs", "MiB PSS"
            )
            for _ in range(scale.rounds):
                settings = {"LAYOVER_SERVER__WORKERS": str(count)}
                with alone(OURS, origin.url, folder, settings) as server, MemoryWatch(server.pid) as watch:
                    pull(server.url, "held")
                    path = origin.manifest_path(origin.images["held"].manifest)
                    rate, used = requests_per_second(server, path, scale.load_seconds)
                    with Downloads(server.url + origin.layer_path("held"), _READERS) as downloads:
                        time.sleep(scale.load_seconds)
                speed.add(OURS, rate)
                cost.add(OURS, used)
                moved.add(OURS, downloads.result.received / downloads.result.seconds / MIB)
                memory.add(OURS, watch.peak / MIB)
            results += made
    return results


def _results(name: str, *units: str) -> list[Result]:
    return [Result(name, unit) for unit in units]


def _names(scale: Scale) -> list[str]:
    return installed([name for name in scale.servers if name in {"layover", "nginx"}])
