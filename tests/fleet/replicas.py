"""Several real replicas in regions, which share one Redis and ask one another over a line that can fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.fleet.line import Line
from tests.fleet.servers import until
from tests.replica import Replica

# Of processes that start at the same time each takes long.
_STARTING = 2
SECRET = "a secret of the whole fleet"
_CLOCK = """import time

_shift = {seconds!r}
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _shift
time.time_ns = lambda: _time_ns() + int(_shift * 1_000_000_000)
"""


class Member(Replica):
    """A replica of a fleet, in a region."""

    def __init__(
        self, store: Path, upstreams: Mapping[str, str], region: str, line: Line, settings: Mapping[str, str]
    ) -> None:
        super().__init__(store, upstreams=upstreams)
        self.region = region
        relay = line.relay(region, self.port, store)
        self._environment |= {
            "LAYOVER_SERVER__WORKERS": "1",
            "LAYOVER_FLEET__REGION": region,
            "LAYOVER_FLEET__REPLICA": store.name,
            "LAYOVER_FLEET__ADVERTISE_URL": f"http://127.0.0.1:{relay}",
            **settings,
        }

    def advertise(self, url: str) -> None:
        """Have siblings reach it there from the next start on."""
        self._environment["LAYOVER_FLEET__ADVERTISE_URL"] = url

    def allow(self, size: int) -> None:
        """Let its store take so many bytes from the next start on."""
        self._environment["LAYOVER_STORE__SIZE"] = f"{size}B"

    @property
    def runs(self) -> bool:
        """Whether the process has been started, and not been ended."""
        return self._process is not None

    def shift_clock(self, seconds: float) -> None:
        """Have the clock go wrong by so many seconds from the next start on."""
        folder = self.store.parent / f"{self.store.name}.clock"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(_CLOCK.format(seconds=seconds))
        self._environment["PYTHONPATH"] = f"{folder}:{self._environment.get('PYTHONPATH', '')}".rstrip(":")


class Replicas:
    """Members of one fleet, `line` between their regions; `with` starts them, and ends all that still run."""

    def __init__(
        self,
        folder: Path,
        regions: Sequence[str],
        redis_url: str,
        upstreams: Mapping[str, str],
        *,
        delay: float = 0.0,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Describe one replica a name in `regions`; `delay` is what passing to another region takes, in seconds."""
        self.line = Line(delay)
        self._folder = folder
        self._regions = tuple(regions)
        self._upstreams = upstreams
        fleet = {"LAYOVER_FLEET__REDIS_URL": redis_url, "LAYOVER_FLEET__SECRET": SECRET} if redis_url else {}
        self._settings = fleet | dict(settings or {})
        self._members: list[Member] = []

    def __getitem__(self, place: int) -> Member:
        return self._members[place]

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members)

    @property
    def running(self) -> list[Member]:
        """Those whose processes run."""
        return [each for each in self._members if each.runs]

    def prepare(self) -> Self:
        """Make ready everything but the processes."""
        self.line.__enter__()
        for number, region in enumerate(self._regions):
            store = self._folder / f"{region}-{number}"
            self._members.append(Member(store, self._upstreams, region, self.line, self._settings))
        return self

    @contextmanager
    def near(self, sizes: Sequence[int] = ()) -> Iterator[Self]:
        """Run them without a line between; `sizes` is what each one's store may take, in bytes."""
        self.prepare()
        for member in self._members:
            member.advertise(member.url)
        for member, size in zip(self._members, sizes, strict=False):
            member.allow(size)
        try:
            self.start()
            yield self
        finally:
            self.stop()

    def start(self) -> None:
        """Start those that do not run, and wait until all know one another."""
        starting = [each for each in self._members if not each.runs]
        with ThreadPoolExecutor(_STARTING) as pool:
            list(pool.map(Member.start, starting))
        self.wait()

    def wait(self) -> None:
        """Wait until all that run know one another."""
        if "LAYOVER_FLEET__REDIS_URL" in self._settings:
            others = len(self.running) - 1
            until(lambda: all(_knows(each, others) for each in self.running), f"all know {others} others")

    def holding(self, digest: str) -> list[Member]:
        """Return those whose store has a digest."""
        algorithm, _, name = digest.partition(":")
        return [each for each in self._members if (each.store / "content" / algorithm / name[:2] / name).exists()]

    def filling(self, digest: str) -> list[Member]:
        """Return those into whose store a digest is on its way."""
        name = digest.replace(":", "-")
        return [each for each in self.running if any((each.store / "partial").glob(f"{name}-*.data"))]

    def stop(self) -> None:
        """End all that run."""
        for each in self._members:
            each.kill()
        self.line.__exit__(None, None, None)

    def __enter__(self) -> Self:
        self.prepare()
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _knows(member: Member, others: int) -> bool:
    return member.metric("layover_fleet_up") == 1 and member.metric("layover_fleet_replicas") >= others
