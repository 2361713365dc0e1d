"""What is held: manifests as fast as they go, and the CPU time of blobs."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.benchmarks.clients import pull
from tests.benchmarks.content import MIB
from tests.benchmarks.load import requests_per_second
from tests.benchmarks.origin import Origin
from tests.benchmarks.processes import cpu_seconds
from tests.benchmarks.readers import read
from tests.benchmarks.recorded import RECORDED
from tests.benchmarks.results import OURS, Result, Target
from tests.benchmarks.scale import Scale
from tests.benchmarks.servers import installed
from tests.benchmarks.turns import alone, side_by_side, turns


def manifest(scale: Scale, folder: Path) -> list[Result]:
    """Requests per second for one manifest that is held, by tag and by digest, over 32 connections."""
    names = installed(scale.servers)
    results = []
    with contextlib.ExitStack() as stack:
        # An origin each, or one server's requests would count as another's.
        origins = {name: stack.enter_context(Origin({"small": [MIB]})) for name in names}
        running = {name: stack.enter_context(alone(name, origins[name].url, folder)) for name in names}
        for server in running.values():
            _expect_none(pull(server.url, "small").failed)
        digest = origins[OURS].images["small"].manifest
        for kind, reference, factor in (("tag", "small", 2.0), ("digest", digest, 1.5)):
            work = f"manifest by {kind}"
            speed = Result(f"warm {work}", "requests/s", Target("at least", factor, "zot"), RECORDED[work])
            cost = Result(f"warm {work}", "CPU µs each")
            asked = Result(f"warm {work}, upstream requests", "", Target("at most", 0))
            for name in turns(names, scale.rounds):
                origin = origins[name]
                before = origin.cost().requests
                path = origin.manifest_path(reference)
                rate, used = requests_per_second(running[name], path, scale.load_seconds)
                speed.add(name, rate)
                cost.add(name, used)
                asked.add(name, origin.cost().requests - before)
            results += [speed, cost, asked]
    return results


def blob(scale: Scale, folder: Path) -> list[Result]:
    """CPU seconds of the server while four clients pull one held blob at once."""
    names, size = installed(scale.servers), scale.mib(512)
    target = Target("at most", 1.3, "nginx")
    result = Result(f"warm blob, 4 x {size // MIB} MiB at once", "CPU s", target, RECORDED["blob CPU"])
    with Origin({"large": [size]}) as origin, side_by_side(names, origin.url, folder) as running:
        for server in running.values():
            _expect_none(pull(server.url, "large").failed)
        for name in turns(names, scale.rounds):
            before = cpu_seconds(running[name].pid)
            pulled = read(running[name].url + origin.layer_path("large"), 4)
            result.add(name, cpu_seconds(running[name].pid) - before)
            if pulled.whole != 4:
                result.fail(name, f"{pulled.whole} of 4 readers got the blob")
    return [result]


def _expect_none(failed: list[str]) -> None:
    if failed:
        raise RuntimeError(f"the image cannot be pulled: {failed[0]}")
