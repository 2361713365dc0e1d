"""What pulls notice when Redis goes: `python -m tests.fleet.losing` takes it from a replica under load in every way.

For each way it prints how long answers took before, in the first second, and after that, in milliseconds, and how soon
the fleet was back. Then Redis restarts empty, and it prints how long that takes until all holders are known again;
and the line between two regions swallows all, and it prints how long pulls take of what is held on the other side.
It ends with 1 where something was not as docs/fleet.md says.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.prober import percentile
from tests.fleet.callers import Call, Callers, Work
from tests.fleet.crowd import pull
from tests.fleet.line import Line
from tests.fleet.replicas import Member, Replicas
from tests.fleet.servers import Valkey, until
from tests.replica import NO_PREFETCH
from tests.store.large import lay
from tests.upstream import Image, Upstream

_FIRST = 1.0
# Redis may be waited for so long in all, and a busy machine adds to that.
_MOST_ADDED = 0.25
_SLACK = 0.1
_MOST_AFTER = 0.005
# What a sibling that says nothing any more may cost a pull.
_MOST_SILENT = 3.0
_COLD = 60
_EXPIRING = 15
_LISTED = 3
# What expires is asked for again once it has.
_TTL_SECONDS = 1.0
_SETTINGS: Mapping[str, str] = {
    **NO_PREFETCH,
    "LAYOVER_LOG__LEVEL": "warning",
    "LAYOVER_FRESHNESS__TAG_TTL": f"{_TTL_SECONDS:.0f}s",
    "LAYOVER_FRESHNESS__RULES": '[{"match": "docker.io/library/warm:*", "ttl": "1h"}]',
}


class Scene(NamedTuple):
    """Two replicas of a region, their registry, and their Redis, behind a line if it is to swallow."""

    upstream: Upstream
    valkey: Valkey
    line: Line
    replicas: Sequence[Member]

    @property
    def is_whole(self) -> bool:
        """Whether the fleet can be asked."""
        return all(each.metric("layover_fleet_up") == 1 for each in self.replicas)

    def works(self, name: str) -> list[Work]:
        """Return what clients ask for: what is held and fresh by many, and by one each what has to be asked about.

        What is cold is pulled under `name`, which is to be another one each time.
        """
        image = self.upstream.push_image("library/warm", "1", ("linux/amd64",), (20_000,), raw=True)
        names = ("1", image.index.digest, image.platforms[0].manifest.digest)
        warm = [f"/v2/library/warm/manifests/{each}" for each in names]
        warm += [f"/v2/library/warm/blobs/{blob.digest}" for blob in image.blobs]
        expiring = []
        for number in range(_EXPIRING):
            self.upstream.push_image("library/expiring", str(number), ("linux/amd64",), (100,), number, raw=True)
            expiring.append(f"/v2/library/expiring/manifests/{number}")
        cold = []
        for number in range(_COLD):
            repository = f"library/{name}-{number}"
            blob = self.upstream.push_image(repository, "1", ("linux/amd64",), (1000,), raw=True).layers[0]
            cold += [f"/v2/{repository}/manifests/1", f"/v2/{repository}/blobs/{blob.digest}"]
        listed = [f"/v2/library/{name}-{number}/tags/list" for number in range(_LISTED)]
        pause = 1.5 * _TTL_SECONDS
        return [
            Work("warm", warm, 8, 0.01),
            Work("expired tags", expiring, 1, pause / _EXPIRING),
            Work("listings", listed, 1, pause / _LISTED),
            Work("cold", cold, 1, 0.1),
        ]


class Loss(NamedTuple):
    """A way to lose Redis, and how it ends."""

    name: str
    begin: Callable[[Scene], object]
    end: Callable[[Scene], object]


def _change_password(scene: Scene) -> None:
    scene.valkey.ask("CONFIG", "SET", "requirepass", "another")
    scene.valkey.password = "another"
    scene.valkey.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def _restore_password(scene: Scene) -> None:
    scene.valkey.ask("CONFIG", "SET", "requirepass", "right")
    scene.valkey.password = "right"


LOSSES = (
    Loss("is swallowed", lambda scene: scene.line.swallow(), lambda scene: scene.line.heal()),
    Loss("refuses", lambda scene: scene.valkey.kill(), lambda scene: scene.valkey.start()),
    Loss("is stopped", lambda scene: scene.valkey.pause(), lambda scene: scene.valkey.resume()),
    Loss(
        "is out of memory",
        lambda scene: scene.valkey.ask("CONFIG", "SET", "maxmemory", "1"),
        lambda scene: scene.valkey.ask("CONFIG", "SET", "maxmemory", "0"),
    ),
    Loss("has another password", _change_password, _restore_password),
)


@contextmanager
def fleet(folder: Path, *, is_behind_a_line: bool = True) -> Iterator[Scene]:
    """Run a scene; its stores are the folders `west-0` and `west-1`."""
    options = ("--maxmemory-policy", "noeviction")
    with (
        Upstream() as upstream,
        Valkey(folder / "valkey", password="right", options=options) as valkey,
        Line() as line,
    ):
        port = line.relay("redis", valkey.port) if is_behind_a_line else valkey.port
        url = valkey.url.replace(str(valkey.port), str(port))
        replicas = Replicas(folder, ("west", "west"), url, {"docker.io": upstream.url}, settings=_SETTINGS)
        with replicas.near():
            yield Scene(upstream, valkey, line, list(replicas))


def told(valkey: Valkey) -> int:
    """Return of how many digests Redis knows holders."""
    with valkey.client() as client:
        return sum(1 for _ in client.scan_iter(match=b"*h:2*", count=1000))


def lose(scene: Scene, loss: Loss, seconds: float) -> tuple[float, list[Call]]:
    """Take Redis away amid so many seconds of calls, and return when that was, and the calls."""
    with Callers(scene.replicas[0].url, scene.works(loss.name.replace(" ", "-"))) as callers:
        time.sleep(seconds / 2)
        lost_at = time.monotonic()
        loss.begin(scene)
        time.sleep(_FIRST + seconds / 2)
    return lost_at, callers.calls


class Times(NamedTuple):
    """How long some calls took, in seconds."""

    middle: float
    slow: float
    longest: float

    @classmethod
    def of(cls, calls: Sequence[Call]) -> Times:
        """Return those of calls."""
        seconds = [call.seconds for call in calls] or [0.0]
        return cls(percentile(seconds, 0.5), percentile(seconds, 0.99), max(seconds))

    def __str__(self) -> str:
        return " / ".join(f"{1000 * each:.1f}" for each in self)


class Figures(NamedTuple):
    """How the calls of one kind did: before Redis went, in the first second, and after it."""

    before: Times
    first: Times
    after: Times
    number: int
    errors: int

    @classmethod
    def of(cls, lost_at: float, calls: Sequence[Call]) -> Figures:
        """Return those of calls that may all be of one kind."""
        # The first of all make what is warm so.
        warm_at = min(call.at for call in calls) + _FIRST
        return cls(
            Times.of([call for call in calls if warm_at <= call.at and call.at + call.seconds < lost_at]),
            Times.of([call for call in calls if lost_at <= call.at + call.seconds and call.at < lost_at + _FIRST]),
            Times.of([call for call in calls if call.at >= lost_at + _FIRST]),
            len(calls),
            sum(bool(call.error) for call in calls),
        )

    def is_as_said(self, kind: str) -> bool:
        """Say whether Redis was waited for as little as docs/fleet.md says, and nothing failed."""
        if kind == "warm":
            return not self.errors and self.after.slow <= self.before.slow + _MOST_AFTER
        is_brief = self.first.longest <= self.before.longest + _MOST_ADDED + _SLACK
        return not self.errors and is_brief and self.after.longest <= self.before.longest + _SLACK


def _measure(loss: Loss, seconds: float) -> bool:
    with (
        tempfile.TemporaryDirectory() as name,
        fleet(Path(name), is_behind_a_line=loss is LOSSES[0]) as scene,
    ):
        lost_at, calls = lose(scene, loss, seconds)
        loss.end(scene)
        began, is_right = time.monotonic(), True
        until(lambda: scene.is_whole, "the fleet is back")
        back = time.monotonic() - began
        for kind in dict.fromkeys(call.kind for call in calls):
            found = Figures.of(lost_at, [call for call in calls if call.kind == kind])
            is_right &= found.is_as_said(kind)
            added, share = found.after.slow - found.before.slow, found.after.slow / (found.before.slow or 1)
            _print(
                f"| {loss.name} | {kind} | {found.number:,} | {found.errors} | {found.before} | {found.first} "
                f"| {found.after} | {1000 * added:+.1f} ms, {share:.2f} x |"
            )
        for error in [call.error for call in calls if call.error][:5]:
            _print(f"  {error}")
        _print(f"| {loss.name} | back after {back:.1f} s | | | | | | |")
    return is_right


def _empty(blobs: int) -> bool:
    """Restart Redis empty, and tell how long it takes until all holders are known again."""
    with tempfile.TemporaryDirectory() as name:
        lay(Path(name) / "west-0", blobs)
        with fleet(Path(name), is_behind_a_line=False) as scene:
            until(lambda: told(scene.valkey) >= blobs, "all is told at first", 120)
            scene.valkey.restart()
            began = time.monotonic()
            until(lambda: told(scene.valkey) >= blobs, "all is told again", 120)
            seconds = time.monotonic() - began
            _print(f"\n{blobs:,} holders are complete {seconds:.1f} s after a restart with nothing")
    return seconds <= 60


def _silence(pulls: int) -> bool:
    """Swallow what passes between two regions, and tell how long pulls take of what is held on the other side."""
    with (
        tempfile.TemporaryDirectory() as name,
        Upstream() as upstream,
        Valkey(Path(name) / "valkey") as valkey,
        Replicas(
            Path(name), ("west", "west", "east"), valkey.url, {"docker.io": upstream.url}, settings=_SETTINGS
        ) as replicas,
    ):
        images = [
            upstream.push_image(f"library/held-{number}", "1", ("linux/amd64",), (100_000,), number, raw=True)
            for number in range(2 * pulls)
        ]
        for place, image in enumerate(images):
            _pull(replicas[place % 2], image)
        before = [_pull(replicas[2], image) for image in images[:pulls]]
        replicas.line.swallow()
        first, *later = [_pull(replicas[2], image) for image in images[pulls:]]
    _print(
        f"\nA pull of what another region holds takes {1000 * max(before):.0f} ms at most; once all between is "
        f"swallowed the first takes {first:.2f} s, and the {len(later)} after it {1000 * max(later):.0f} ms at most"
    )
    return first <= max(before) + _MOST_SILENT and max(later) <= max(before) + _MOST_SILENT


def _pull(member: Member, image: Image) -> float:
    """Pull an image, and return how many seconds that took.

    Raises:
        ValueError: it failed.
    """
    (pulled,) = pull([member.url], image.repository, image.tag)
    if pulled.error:
        raise ValueError(pulled.error)
    return pulled.seconds


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Measure as the command line asks."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet.losing", description=__doc__)
    parser.add_argument("--seconds", type=float, default=12.0, help="of calls around each loss")
    parser.add_argument("--pulls", type=int, default=8, help="of what is held where nothing comes from any more")
    parser.add_argument("--blobs", type=int, default=10_000, help="held as Redis restarts empty")
    wanted = parser.parse_args()
    _print("| Redis | requests | number | errors | before: p50 / p99 / max ms | first second | after | p99 |")
    _print("|---|---|--:|--:|--:|--:|--:|--:|")
    is_right = [_measure(loss, wanted.seconds) for loss in LOSSES]
    return 0 if all([*is_right, _empty(wanted.blobs), _silence(wanted.pulls)]) else 1


if __name__ == "__main__":
    sys.exit(main())
