"""What is not held yet: many clients at once, one on a long line, and one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.clients import Crowd, pull
from tests.benchmarks.content import MIB
from tests.benchmarks.origin import LAN, WAN, Line, Origin
from tests.benchmarks.processes import cpu_seconds
from tests.benchmarks.recorded import RECORDED
from tests.benchmarks.results import Result, Target
from tests.benchmarks.scale import Scale
from tests.benchmarks.servers import installed
from tests.benchmarks.turns import SLOW, alone, turns

# Once, to two decimals.
_ONCE = Target("at most", 1.004)


class Cold(NamedTuple):
    """A cold pull by one server: how its clients fared, its CPU seconds, and bytes from upstream by the image's."""

    server: str
    crowd: Crowd
    cpu: float
    fetched: float


def crowd(scale: Scale, folder: Path) -> list[Result]:
    """50 clients pull a cold image at once; the registry is near."""
    layers = scale.layers(60, 40, 25, 6)
    work = f"{scale.clients} clients, cold {sum(layers) // MIB} MiB, LAN"
    wall = Result(work, "s", Target("at most", 1.1, "nginx"), RECORDED["crowd wall"])
    cpu = Result(work, "CPU s", Target("at most", 2.0, "nginx"), RECORDED["crowd CPU"])
    fetched = Result(work, "x upstream", _ONCE, RECORDED["crowd bytes"])
    order = turns(installed(scale.servers), scale.rounds)
    for cold in pulls(order, layers, LAN, folder, clients=scale.clients):
        take(cold, [(wall, cold.crowd.seconds), (cpu, cold.cpu), (fetched, cold.fetched)])
    return [wall, cpu, fetched]


def one_client(scale: Scale, folder: Path) -> list[Result]:
    """One client pulls a cold image over the line: 40 ms, 10 MiB/s a connection, 100 MiB/s in all, blobs redirected."""
    layers = scale.layers(30, 20, 200, 6)
    work = f"one client, cold {sum(layers) // MIB} MiB, the line"
    wall = Result(work, "s", Target("at most", 4.0), RECORDED["line wall"])
    first = Result(f"{work}, first blob byte", "s", Target("at most", 0.5))
    fetched = Result(work, "x upstream")
    for cold in pulls(_slow_turns(scale), layers, WAN, folder):
        waited = cold.crowd.pulls[0].first_blob_byte - cold.crowd.pulls[0].began
        take(cold, [(wall, cold.crowd.seconds), (first, waited), (fetched, cold.fetched)])
    return [wall, first, fetched]


def staggered(scale: Scale, folder: Path) -> list[Result]:
    """20 clients pull a cold image over the line, each 300 ms after the one before."""
    layers, clients = scale.layers(80, 50, 20, 6), max(2, int(20 * scale.share))
    work = f"{clients} clients 300 ms apart, cold {sum(layers) // MIB} MiB, the line"
    wall = Result(work, "s", Target("at most", 8.0), RECORDED["stagger wall"])
    fetched = Result(work, "x upstream", _ONCE, RECORDED["stagger bytes"])
    for cold in pulls(_slow_turns(scale), layers, WAN, folder, clients=clients, gap=0.3):
        take(cold, [(wall, cold.crowd.seconds), (fetched, cold.fetched)])
    return [wall, fetched]


def pulls(
    order: Iterator[str], layers: list[int], line: Line, folder: Path, *, clients: int = 1, gap: float = 0.0
) -> Iterator[Cold]:
    """Pull an image in turn through each server, with nothing in its cache."""
    with Origin({"cold": layers}, line) as origin:
        for name in order:
            sent = origin.cost().sent
            with alone(name, origin.url, folder) as server:
                before = cpu_seconds(server.pid)
                pulled = pull(server.url, "cold", clients, gap)
                used = cpu_seconds(server.pid) - before
            yield Cold(name, pulled, used, (origin.cost().sent - sent) / origin.images["cold"].size)


def take(cold: Cold, values: list[tuple[Result, float]]) -> None:
    """Take in what was measured of a pull, or that it failed."""
    for result, value in values:
        if cold.crowd.failed:
            result.fail(cold.server, f"{len(cold.crowd.failed)} clients failed: {cold.crowd.failed[0]}")
        else:
            result.add(cold.server, value)


def _slow_turns(scale: Scale) -> Iterator[str]:
    # nginx cannot: it hands redirects to its clients.
    names = [name for name in scale.servers if name != "nginx"]
    return turns(installed(names), scale.rounds, once=SLOW)
