"""Coordinators as hubs have them, several in one process."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from mirror.config import FleetSettings, RedisUrl, Secret
from mirror.config.units import Address, Origin, Region
from mirror.fleet import Identity, RedisCoordinator, Sibling
from mirror.fleet.locating import ROOT
from mirror.observe.metrics import HubMetrics, Registry, new_registry, samples
from mirror.oci.digest import Digest

SECONDS = 20.0


async def eventually(holds: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Wait until something holds; an error that says `what` does not, once the time is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not holds():
        assert loop.time() < deadline, f"not so after {seconds} s: {what}"
        await asyncio.sleep(0.01)


def digest(number: int) -> Digest:
    return Digest.of(str(number).encode())


def metric(registry: Registry, name: str, **labels: str) -> float:
    """Return the sum over every series of `name` that has these labels."""
    return sum(
        each.value for each in samples(registry) if each.name == name and labels.items() <= dict(each.labels).items()
    )


class Fleet:
    """Replicas' coordinators that share a Redis; `async with` ends all that were started."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.registries: dict[str, Registry] = {}
        self._folder = folder
        self._ports = itertools.count(5000)
        self._started: list[RedisCoordinator] = []
        self._abandoned: list[RedisCoordinator] = []

    async def start(
        self,
        name: str,
        region: str = "local",
        *,
        check: Callable[[Sibling], bool] | None = None,
        store: str = "",
        advertise_url: str = "",
        url_file: str = "",
    ) -> RedisCoordinator:
        """Start one; its store is called as it is itself, or `store`."""
        home = self._folder / (store or name)
        home.mkdir(parents=True, exist_ok=True)
        identity = Identity(home)
        identity.load()
        settings = FleetSettings(
            redis_url=RedisUrl() if url_file else RedisUrl.parse(self.url),
            redis_url_file=url_file,
            region=Region(region),
            advertise_url=Origin(advertise_url),
            secret=Secret("s"),
        )
        registry = self.registries[name] = new_registry()
        listen = [Address("127.0.0.1", next(self._ports))]
        made = RedisCoordinator(settings, listen, name, "1.0", identity, HubMetrics(registry))
        if check is not None:
            made.check = _asynchronous(check)
        self._started.append(made)
        await made.start()
        made.serves()
        return made

    async def member(self, name: str, region: str = "local", *, store: str = "") -> RedisCoordinator:
        """Start one, and wait until it is one of the fleet and knows and is known to all who are."""
        made = await self.start(name, region, store=store)
        await eventually(lambda: made.is_up, f"{name} is one of the fleet")
        others = [each for each in self._started if each.is_up and each is not made]
        await eventually(lambda: all(each.identity in made.siblings for each in others), f"{name} knows all")
        await eventually(lambda: all(made.identity in each.siblings for each in others), f"all know {name}")
        return made

    def abandon(self, member: RedisCoordinator, *, long_ago: bool = False) -> None:
        """End one as a kill does: without a goodbye; with `long_ago` its last beat was so for Redis."""
        if long_ago:
            with redis.Redis.from_url(self.url) as client:
                client.zadd(f"{ROOT}live", {member._fleet.seat: time.time() * 1000 - 60_000})
        for task in (*member._tasks, *member._fleet._tasks, member._link._keeper):
            if task is not None:
                task.cancel()
        for outbox in (member._copies.outbox, member._facts.outbox, member._uses.outbox):
            if outbox._task is not None:
                outbox._task.cancel()
        self._started.remove(member)
        self._abandoned.append(member)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(each.close() for each in self._started))
        await asyncio.gather(*(each._link.close() for each in self._abandoned))


def _asynchronous(check: Callable[[Sibling], bool]) -> Callable[[Sibling], Awaitable[bool]]:
    async def answer(sibling: Sibling) -> bool:
        return check(sibling)

    return answer
