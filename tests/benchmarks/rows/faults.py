"""What is pulled while the registry fails: what is held already, and what is on its way."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from tests.benchmarks.clients import Crowd, pull
from tests.benchmarks.content import MIB
from tests.benchmarks.origin import LAN, WAN, Faults, Line, Origin
from tests.benchmarks.recorded import RECORDED
from tests.benchmarks.results import OURS, Result, Target
from tests.benchmarks.scale import Scale
from tests.benchmarks.servers import installed
from tests.benchmarks.turns import SLOW, alone, turns

_LATER_PULLS = 9
_PATIENCE = 60.0
_TTL = {"LAYOVER_FRESHNESS__TAG_TTL": "1s"}
_EXPIRED_SECONDS = 1.2
# So much more may a pull in an outage take than one without: within what two medians of the same differ by.
_AS_WARM = 1.25


def hang(scale: Scale, folder: Path) -> list[Result]:
    """A held image whose tag has expired is pulled while the upstream accepts connections and never answers."""
    first, later = _outage("upstream hangs", Faults(hang=True), scale, folder)
    first.target, first.recorded = Target("at most", 1.2), RECORDED["hang"]
    return [first, later]


def limited(scale: Scale, folder: Path) -> list[Result]:
    """A held image whose tag has expired is pulled while the upstream answers 429 to everything."""
    first, later = _outage("upstream answers 429", Faults(limited=True), scale, folder)
    first.target, first.recorded = Target("at most", _AS_WARM, "warm"), RECORDED["limited"]
    return [first, later]


def cut(scale: Scale, folder: Path) -> list[Result]:
    """Three clients pull a cold image while each answer with a blob ends after 5 MiB."""
    right = Result("every blob answer cut after 5 MiB, of 3 clients", "succeed", Target("at least", 3))
    fetched = Result("every blob answer cut after 5 MiB", "x upstream", Target("at most", 1.0))
    with Origin({"cold": scale.layers(40, 24)}) as origin:
        origin.fail(Faults(cut=5 * MIB))
        for name in turns(_names(scale), scale.rounds, once=SLOW):
            sent = origin.cost().sent
            with alone(name, origin.url, folder) as server:
                crowd = pull(server.url, "cold", 3)
            right.add(name, 3 - len(crowd.failed))
            fetched.add(name, (origin.cost().sent - sent) / origin.images["cold"].size)
    return [right, fetched]


def stall(scale: Scale, folder: Path) -> list[Result]:
    """One client pulls a cold image with a blob in the middle of which the upstream stands still for 20 s."""
    near = Result("upstream stalls 20 s inside a blob, LAN", "s", Target("at most", 5.0), RECORDED["stall"])
    far = Result("upstream stalls 20 s inside a blob, the line, longest pause", "s", Target("at most", 5.0))
    for name in turns(_names(scale), scale.rounds, once=SLOW):
        _take(near, name, crowd := _stalled(name, LAN, scale, folder), crowd.seconds)
    for name in turns([OURS], scale.rounds):
        _take(far, name, crowd := _stalled(name, WAN, scale, folder), crowd.pulls[0].pause)
    return [near, far]


def corrupt(scale: Scale, folder: Path) -> list[Result]:
    """Three clients pull a cold image with a byte of its layer wrong, and one again when the upstream is well."""
    delivered = Result("corrupt blob, of 3 clients", "get it whole", Target("at most", 0), RECORDED["corrupt"])
    healed = Result("corrupt blob, the next pull when it is well again", "succeeds", Target("at least", 1))
    waited = Result("corrupt blob, the next pull when it is well again", "s")
    with Origin({"cold": scale.layers(16)}) as origin:
        for name in turns(_names(scale), scale.rounds, once=SLOW):
            with alone(name, origin.url, folder) as server:
                origin.fail(Faults(corrupt=True))
                delivered.add(name, sum(pulled.wrong > 0 for pulled in pull(server.url, "cold", 3).pulls))
                origin.fail()
                again = pull(server.url, "cold")
            healed.add(name, not again.failed)
            waited.add(name, again.seconds)
    return [delivered, healed, waited]


def _outage(what: str, faults: Faults, scale: Scale, folder: Path) -> tuple[Result, Result]:
    """Return how long the first and the later pulls of a held image take in an outage, `warm` what they take else."""
    first = Result(f"warm image, {what}, first pull", "s")
    later = Result(f"warm image, {what}, later pulls", "s", Target("at most", _AS_WARM, "warm"))
    with Origin({"held": scale.layers(20, 12)}) as origin:
        for name in turns(_names(scale), scale.rounds, once=SLOW):
            settings = _TTL if name == OURS else {}
            with alone(name, origin.url, folder, settings) as server:
                pull(server.url, "held")
                warm = _usual_seconds(server.url)
                time.sleep(_EXPIRED_SECONDS)
                origin.fail(faults)
                _take(first, name, crowd := pull(server.url, "held", patience=_PATIENCE), crowd.seconds)
                if name == OURS:
                    later.add(name, _usual_seconds(server.url))
                    for result in (first, later):
                        result.add("warm", warm)
                origin.fail()
    return first, later


def _usual_seconds(url: str) -> float:
    crowds = [pull(url, "held") for _ in range(_LATER_PULLS)]
    return statistics.median(crowd.seconds for crowd in crowds)


def _stalled(name: str, line: Line, scale: Scale, folder: Path) -> Crowd:
    size = scale.mib(48)
    with Origin({"cold": [size]}, line) as origin, alone(name, origin.url, folder) as server:
        origin.fail(Faults(stalls=[size // 2]))
        return pull(server.url, "cold")


def _take(result: Result, name: str, crowd: Crowd, value: float) -> None:
    if crowd.failed:
        result.fail(name, crowd.failed[0])
    else:
        result.add(name, value)


def _names(scale: Scale) -> list[str]:
    # nginx is no registry: it is not compared here.
    return installed([name for name in scale.servers if name != "nginx"])
