"""Parts of a blob that is on its way: how soon they come, and what they cost the upstream."""

from __future__ import annotations

import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.benchmarks.content import MIB
from tests.benchmarks.origin import WAN, Faults, Origin
from tests.benchmarks.readers import Downloads, read
from tests.benchmarks.results import OURS, Result, Target
from tests.benchmarks.scale import Scale
from tests.benchmarks.turns import alone

_PATIENCE = 120.0
_STALL_SECONDS = 20.0


def seek(scale: Scale, folder: Path) -> list[Result]:
    """A reader asks for what is far inside a cold blob on the line while another reads from its start."""
    size, offset = scale.mib(1024), scale.mib(900)
    result = Result(f"first byte at {offset // MIB} of cold {size // MIB} MiB, the line", "s", Target("at most", 2.0))
    with Origin({"cold": [size]}, WAN) as origin:
        for _ in range(scale.rounds):
            with alone(OURS, origin.url, folder) as server:
                url = server.url + origin.layer_path("cold")
                with Downloads(url, 1):
                    began = time.monotonic()
                    _read_range(url, offset, offset + 1)
                    result.add(OURS, time.monotonic() - began)
    return [result]


def fetched(scale: Scale, folder: Path) -> list[Result]:
    """Several readers of ranges of one cold blob on the line: bytes from upstream, without faults and with stalls."""
    size = scale.mib(256)
    well = Result(f"ranges of a cold {size // MIB} MiB blob, the line", "x upstream", Target("at most", 1.02))
    stalled = Result("the same, connections stall, each replaced one costs", "MiB", Target("at most", 4.0))
    taken = Result("the same, connections stall", "s")
    with Origin({"cold": [size]}, WAN) as origin:
        for _ in range(scale.rounds):
            well.add(OURS, _fetch(origin, size, folder)[0] / size)
            stalls = [size // 5, size // 2, size * 4 // 5]
            origin.fail(Faults(stalls=stalls, stall_seconds=_STALL_SECONDS))
            struck = origin.cost().faults
            sent, seconds = _fetch(origin, size, folder)
            struck = origin.cost().faults - struck
            origin.fail()
            stalled.add(OURS, max(0, sent - size) / max(1, struck) / MIB)
            stalled.notes.append(f"{struck} connections stalled")
            taken.add(OURS, seconds)
    return [well, stalled, taken]


def _fetch(origin: Origin, size: int, folder: Path) -> tuple[int, float]:
    """Read all and parts of the blob at once; return the bytes sent upstream, and how long it took."""
    sent, began = origin.cost().sent, time.monotonic()
    with alone(OURS, origin.url, folder) as server, ThreadPoolExecutor() as threads:
        url = server.url + origin.layer_path("cold")
        parts = [(size // 2, size), (size - 64 * 1024, size), (size // 4, size // 4 + MIB)]
        reading = [threads.submit(_read_range, url, *part) for part in parts]
        whole = read(url, 1).whole
        for future, (start, stop) in zip(reading, parts, strict=True):
            if future.result() != stop - start:
                raise RuntimeError("a range came with too few bytes")
        if not whole:
            raise RuntimeError("the blob came wrong")
        seconds = time.monotonic() - began
    return origin.cost().sent - sent, seconds


def _read_range(url: str, start: int, stop: int) -> int:
    """Read a range and return how many bytes of it came."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-{stop - 1}"})
    received = 0
    with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
        if answer.status != 206:
            raise RuntimeError(f"a range was answered {answer.status}")
        while piece := answer.read(MIB):
            received += len(piece)
    return received
