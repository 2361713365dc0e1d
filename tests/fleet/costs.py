"""What a fleet's state costs in Redis: `python -m tests.fleet.costs` prints the table of docs/fleet.md."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import redis
import structlog

from mirror.config import FleetSettings, RedisUrl, Secret
from mirror.config.units import Address
from mirror.fleet import Fact, Identity, Turn, Wish
from mirror.fleet.coordinator import RedisCoordinator
from mirror.observe.metrics import HubMetrics, Registry, new_registry
from mirror.oci.digest import Digest
from tests.fleet.members import eventually, metric
from tests.fleet.servers import Valkey

_AT_ONCE = 2000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blobs", type=int, default=10_000)
    parser.add_argument("--replicas", type=int, default=100)
    wanted = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder, Valkey(Path(folder) / "valkey") as valkey:
        asyncio.run(_measure(Path(folder), valkey, wanted.blobs, wanted.replicas))


async def _measure(folder: Path, valkey: Valkey, blobs: int, replicas: int) -> None:
    with valkey.client() as client:
        _print("| what | keys | bytes |\n|---|---|---|")
        registries = [new_registry() for _ in range(replicas)]
        members = [await _member(folder, valkey, *each) for each in enumerate(registries)]
        await eventually(lambda: all(each.is_up for each in members), "all are members", 60)
        await eventually(lambda: len(members[0].siblings) == replicas - 1, "all are known", 60)
        _row(client, f"{replicas} replicas", (0, 0))
        # A hundred that beat in one process keep it busy, and are not what is measured from here on.
        await asyncio.gather(*(each.close() for each in members[1:]))
        known = _size(client)
        digests = [Digest.of(os.urandom(16)) for _ in range(blobs)]
        await _hold(members[0], members[:1], digests)
        known = _row(client, f"{blobs:,} blobs, each held once", known)
        await _hold(members[0], members[1:], digests)
        known = _row(client, f"the same, each held by all {replicas}", known)
        for some in _slices(digests):
            members[0].used(dict.fromkeys(some, 1))
            await members[0]._uses._flush()
        known = _row(client, f"popularity of {blobs:,} blobs", known)
        await _each(1000, lambda number: members[0].claim(Digest.of(str(number).encode())))
        known = _row(client, "1,000 fills under way", known)
        at = members[0].time
        await _each(1000, lambda number: members[0].post(Turn(str(number)), b"x" * 150, at, 600))
        known = _row(client, "1,000 answers of upstreams, 150 bytes each", known)
        for number in range(1000):
            members[0].share(Fact("quota", str(number), b"x" * 50, at, at + 600))
        await members[0]._facts._flush()
        known = _row(client, "1,000 facts, 50 bytes each", known)
        await _each(1000, lambda number: members[0].order("purge", f"docker.io/library/image-{number}:*"))
        _row(client, "1,000 orders", known)
        _print("\n| a replica does | commands |\n|---|---|")
        await _commands(members[0], registries[0])
        await members[0].close()


async def _member(folder: Path, valkey: Valkey, number: int, registry: Registry) -> RedisCoordinator:
    home = folder / str(number)
    home.mkdir()
    identity = Identity(home)
    identity.load()
    settings = FleetSettings(redis_url=RedisUrl.parse(valkey.url), secret=Secret("s"))
    listen = [Address("127.0.0.1", 5000 + number)]
    made = RedisCoordinator(settings, listen, f"replica-{number}", "1.0", identity, HubMetrics(registry))
    await made.start()
    return made


async def _hold(one: RedisCoordinator, holders: Sequence[RedisCoordinator], digests: Sequence[Digest]) -> None:
    """Have one replica tell what all of these hold: a hundred that tell it themselves keep a test machine busy."""
    for holder in holders:
        for digest in digests:
            one._copies.tell(digest, is_held=True, identity=holder.identity)
        await eventually(lambda: not one._copies._pending, "all was told", 120)


async def _each(count: int, work: Callable[[int], Awaitable[object]]) -> None:
    for start in range(0, count, 50):
        await asyncio.gather(*(work(number) for number in range(start, start + 50)))


def _slices(digests: Sequence[Digest]) -> Iterator[Sequence[Digest]]:
    for start in range(0, len(digests), _AT_ONCE):
        yield digests[start : start + _AT_ONCE]


def _row(client: redis.Redis, what: str, known: tuple[int, int]) -> tuple[int, int]:
    """Print what came since it was as `known`, and return what there is now."""
    keys, size = _size(client)
    _print(f"| {what} | {keys - known[0]:,} | {size - known[1]:,} |")
    return keys, size


def _size(client: redis.Redis) -> tuple[int, int]:
    """Return how many keys there are, and the memory that all of them take with all of their parts."""
    keys = list(client.scan_iter(count=1000))
    size = 0
    for start in range(0, len(keys), 1000):
        batch = client.pipeline(transaction=False)
        for key in keys[start : start + 1000]:
            batch.memory_usage(key, samples=0)
        size += sum(each or 0 for each in batch.execute())
    return len(keys), size


async def _commands(one: RedisCoordinator, registry: Registry) -> None:
    """Count what Redis is sent for one of each."""
    digest = Digest.of(b"one")
    turn = Turn("counted", 1)
    works: dict[str, Callable[[], Awaitable[object]]] = {
        "claims a blob": lambda: one.claim(digest),
        "tells that it holds it": lambda: one.yield_up(digest, is_held=True),
        "asks who holds it": lambda: one.holders(digest),
        "consults about a tag": lambda: one.consult("counted", 0, 1),
        "posts the answer": lambda: one.post(turn, b"x", one.time, 60),
        "releases 100 blobs": lambda: one.release([Wish(Digest.of(str(each).encode()), 1, 1) for each in range(100)]),
    }
    for what, work in works.items():
        before = _asked(registry)
        await work()
        _print(f"| {what} | {_asked(registry) - before:.0f} |")


def _asked(registry: Registry) -> float:
    """Return how many commands a replica has sent but for heartbeats."""
    name = "layover_fleet_seconds_count"
    return metric(registry, name) - metric(registry, name, operation="beat")


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
