"""Memory with many clients attached."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.content import MIB
from tests.benchmarks.origin import Line, Origin
from tests.benchmarks.processes import MemoryWatch
from tests.benchmarks.readers import read
from tests.benchmarks.results import OURS, Result, Target
from tests.benchmarks.scale import Scale
from tests.benchmarks.turns import alone


def readers(scale: Scale, folder: Path) -> list[Result]:
    """Peak memory of each process while 200 readers are attached to one large blob, first cold and then warm."""
    return _attached(scale.readers, scale.mib(128), scale, folder)


def streams(scale: Scale, folder: Path) -> list[Result]:
    """Peak memory of each process while 1,000 readers are attached to one blob, first cold and then warm."""
    return _attached(scale.streams, scale.mib(24), scale, folder)


def _attached(count: int, size: int, scale: Scale, folder: Path) -> list[Result]:
    work = f"{count} readers of {size // MIB} MiB over {scale.readers_seconds:.0f} s"
    results = []
    line = Line(total_rate=int(size / scale.readers_seconds))
    with Origin({"large": [size]}, line) as origin, alone(OURS, origin.url, folder) as server:
        for state in ("cold", "warm"):
            most = Result(f"{work}, {state}, largest process", "MiB PSS", Target("below", 150))
            total = Result(f"{work}, {state}, all processes", "MiB PSS")
            sent = origin.cost().sent
            with MemoryWatch(server.pid) as watch:
                pulled = read(server.url + origin.layer_path("large"), count, scale.readers_seconds)
            if pulled.whole != count:
                most.fail(OURS, f"only {pulled.whole} of {count} readers got the whole blob")
            most.add(OURS, watch.peak_process / MIB)
            total.add(OURS, watch.peak / MIB)
            most.notes.append(f"took {pulled.seconds:.1f} s, {(origin.cost().sent - sent) / size:.2f} x from upstream")
            results += [most, total]
    return results
