"""Small requests beside large ones."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.clients import pull
from tests.benchmarks.content import MIB
from tests.benchmarks.origin import Origin
from tests.benchmarks.prober import percentile, probe
from tests.benchmarks.readers import Downloads
from tests.benchmarks.results import Result, Target
from tests.benchmarks.scale import Scale
from tests.benchmarks.servers import installed
from tests.benchmarks.turns import side_by_side, turns

_DOWNLOADS = 16


def busy(scale: Scale, folder: Path) -> list[Result]:
    """A manifest is asked 100 times a second while 16 clients pull a held blob flat out."""
    names = installed([name for name in scale.servers if name in {"layover", "nginx"}])
    size = scale.mib(1024)
    work = f"manifest during {_DOWNLOADS} downloads"
    middle = Result(f"{work}, p50", "ms")
    slowest = Result(f"{work}, p99", "ms", Target("at most", 2.0, "nginx"))
    moved = Result(f"{work}, bytes downloaded", "MiB/s")
    with Origin({"large": [size]}) as origin, side_by_side(names, origin.url, folder) as running:
        for server in running.values():
            pull(server.url, "large")
        for name in turns(names, scale.rounds):
            url = running[name].url
            with Downloads(url + origin.layer_path("large"), _DOWNLOADS) as downloads:
                times = probe(url + origin.manifest_path(origin.images["large"].manifest), 2.0 * scale.load_seconds)
            middle.add(name, percentile(times, 0.5) * 1000)
            slowest.add(name, percentile(times, 0.99) * 1000)
            moved.add(name, downloads.result.received / downloads.result.seconds / MIB)
    return [middle, slowest, moved]
