"""What is measured, row by row. A row starts what it needs and leaves nothing running."""

from __future__ import annotations

import contextlib
import re
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks import servers
from tests.benchmarks.content import MIB
from tests.benchmarks.origin import Origin
from tests.benchmarks.processes import MemoryWatch, cpu_seconds
from tests.benchmarks.readers import read
from tests.benchmarks.servers import Server


@dataclass(frozen=True)
class Scale:
    """How much of everything: the full measure, or a quick look that proves little."""

    rounds: int = 3
    wrk_seconds: int = 10
    blob_size: int = 512 * MIB
    readers: int = 200
    readers_size: int = 1024 * MIB
    readers_seconds: float = 60.0


QUICK = Scale(wrk_seconds=2, blob_size=64 * MIB, readers=40, readers_size=64 * MIB, readers_seconds=5.0)


@dataclass
class Result:
    """One line of the table: every value of each server, in `unit`."""

    name: str
    unit: str
    target: str
    values: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, server: Server, value: float) -> None:
        """Take in one value."""
        self.values.setdefault(server.name, []).append(value)

    def median(self, server: str) -> float | None:
        """Return the middle value of a server, or None when it was not measured."""
        values = self.values.get(server)
        return statistics.median(values) if values else None

    @property
    def ratio(self) -> float | None:
        """Layover's median by nginx's, or None without both."""
        ours, theirs = self.median("layover"), self.median("nginx")
        return ours / theirs if ours is not None and theirs else None


def manifest_by_digest(scale: Scale, folder: Path) -> list[Result]:
    """Requests per second for one manifest that is held, by digest, over 32 connections."""
    result = Result("warm manifest by digest", "requests/s", "≥ 0.20 x nginx")
    wrk = servers.find("wrk")
    if wrk is None:
        result.notes.append("wrk is not installed")
        return [result]
    with Origin(MIB) as origin, _pair(origin, folder, result) as pair:
        for server in pair:
            _wrk(wrk, server.url + origin.manifest, 1)
        asked = origin.cost().requests
        for server in _rounds(pair, scale.rounds):
            result.add(server, _wrk(wrk, server.url + origin.manifest, scale.wrk_seconds))
        result.notes.append(f"{origin.cost().requests - asked} upstream requests while warm")
    return [result]


def blob_cpu(scale: Scale, folder: Path) -> list[Result]:
    """CPU seconds of the server while four clients pull one held blob at once."""
    result = Result(f"warm blob, 4 x {scale.blob_size // MIB} MiB at once", "CPU s", "≤ 2 x nginx")
    with Origin(scale.blob_size) as origin, _pair(origin, folder, result) as pair:
        for server in pair:
            _expect(read(server.url + origin.blobs[0], 1).whole, 1)
        for server in _rounds(pair, scale.rounds):
            before = cpu_seconds(server.pid)
            _expect(read(server.url + origin.blobs[0], 4).whole, 4)
            result.add(server, cpu_seconds(server.pid) - before)
    return [result]


def readers_memory(scale: Scale, folder: Path) -> list[Result]:
    """Peak memory of the replica while many readers are attached to one large blob, first cold and then warm."""
    work = f"{scale.readers} readers of {scale.readers_size // MIB} MiB over {scale.readers_seconds:.0f} s"
    results = []
    line = int(scale.readers_size / scale.readers_seconds)
    with Origin(scale.readers_size, rate=line) as origin, servers.layover(origin.url, folder) as server:
        for state in ("cold", "warm"):
            result = Result(f"{work}, {state}", "MiB PSS", "< 150")
            sent = origin.cost().sent
            with MemoryWatch(server.pid) as watch:
                pulled = read(server.url + origin.blobs[0], scale.readers, scale.readers_seconds)
            _expect(pulled.whole, scale.readers)
            result.add(server, watch.peak / MIB)
            upstream = (origin.cost().sent - sent) / scale.readers_size
            result.notes.append(f"took {pulled.seconds:.1f} s, {upstream:.2f} x the blob from upstream")
            results.append(result)
    return results


ROWS: dict[str, Callable[[Scale, Path], list[Result]]] = {
    "manifest": manifest_by_digest,
    "blob": blob_cpu,
    "readers": readers_memory,
}


def measure(row: str, scale: Scale, folder: Path | None) -> list[Result]:
    """Run one row in a temporary folder under `folder` (None: where temporary files go)."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=folder) as place:
        return ROWS[row](scale, Path(place))


@contextlib.contextmanager
def _pair(origin: Origin, folder: Path, result: Result) -> Iterator[list[Server]]:
    """Run Layover and, where it is installed, nginx."""
    with contextlib.ExitStack() as stack:
        pair = [stack.enter_context(servers.layover(origin.url, folder))]
        try:
            pair.append(stack.enter_context(servers.nginx(origin.url, folder)))
        except FileNotFoundError:
            result.notes.append("nginx is not installed")
        yield pair


def _rounds(pair: list[Server], rounds: int) -> Iterator[Server]:
    """Yield each server once a round, the order turned round each time."""
    for number in range(rounds):
        yield from pair if number % 2 == 0 else reversed(pair)


def _wrk(program: str, url: str, seconds: int) -> float:
    """Return requests per second; RuntimeError when any answer was not the one asked for."""
    command = (program, "-t1", "-c32", f"-d{seconds}s", url)
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=seconds + 30, text=True).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if found is None or "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"wrk: {output}")
    return float(found[1])


def _expect(whole: int, count: int) -> None:
    if whole != count:
        raise RuntimeError(f"only {whole} of {count} readers got the whole blob")
