"""What upstreams say, asked once by six replicas, one of them with a clock that is an hour off."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, cycle, islice

import pytest

from tests.conformance.wire import Answer, Door, exchange
from tests.fleet.replicas import Member, Replicas
from tests.fleet.servers import Valkey, until
from tests.hub.pulling import asked, digest, pull, stale, status, wait_for
from tests.replica import NO_PREFETCH
from tests.upstream import Failure, Image, Upstream

HOSTS = ("plain.test", "limited.test", "counted.test", "closed.test")
PLATFORM = "linux/amd64"
TTL = 4.0
QUOTA = 100
USER = {"username": "robot", "password": "swordfish"}
SETTINGS = {
    **NO_PREFETCH,
    "LAYOVER_FRESHNESS__RULES": json.dumps([{"match": "*:short", "ttl": f"{int(TTL)}s"}]),
    "LAYOVER_FRESHNESS__NEGATIVE_TTL": "60s",
}


@dataclass(frozen=True)
class World:
    """The fleet, and its upstreams by their names."""

    replicas: Replicas
    upstreams: dict[str, Upstream]

    @property
    def all(self) -> list[Member]:
        return self.replicas.running

    def __getitem__(self, host: str) -> Upstream:
        return self.upstreams[host]

    def at_once(self, ask: Callable[[Member], Answer]) -> list[Answer]:
        """Have every replica asked at the same time."""
        with ThreadPoolExecutor(len(self.all)) as threads:
            return list(threads.map(ask, self.all))


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("tags") / "valkey") as running:
        yield running


@pytest.fixture(scope="module")
def fleet(redis: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    upstreams = {host: Upstream() for host in HOSTS}
    upstreams["counted.test"].dials.manifest_quota_limit = QUOTA
    urls = {host: upstream.url for host, upstream in upstreams.items()}
    regions = ("eu", "eu", "eu", "us", "us", "us")
    replicas = Replicas(tmp_path_factory.mktemp("fleet"), regions, redis.url, urls, settings=SETTINGS)
    try:
        replicas.prepare()
        replicas[4].shift_clock(3600)
        tables = {host: {"url": url, "private": "anyone"} for host, url in urls.items()}
        tables["closed.test"] |= USER
        replicas[5]._environment["LAYOVER_UPSTREAMS"] = json.dumps(tables)
        replicas.start()
        yield World(replicas, upstreams)
    finally:
        replicas.stop()
        for upstream in upstreams.values():
            upstream.stop()


@pytest.fixture(autouse=True)
def clean(fleet: World) -> Iterator[None]:
    yield
    for upstream in fleet.upstreams.values():
        upstream.reset()


def push(world: World, host: str, name: str, tag: str = "1", seed: int = 0) -> Image:
    return world[host].push_image(f"library/{name}", tag, layers=[1000], seed=seed, raw=True)


def test_pull__six_replicas_at_once__each_manifest_is_fetched_once(fleet: World) -> None:
    image = push(fleet, "plain.test", "cold")
    name = "plain.test/library/cold"
    found = fleet.at_once(lambda replica: pull(replica, f"{name}:1"))
    assert {digest(each) for each in found} == {image.index.digest}
    manifest = image.platform(PLATFORM).manifest.digest
    found = fleet.at_once(lambda replica: pull(replica, f"{name}@{manifest}"))
    assert {digest(each) for each in found} == {manifest}
    assert {each.body for each in found} == {fleet["plain.test"].content(manifest)}
    assert asked(fleet["plain.test"], "library/cold") == [("GET", "1"), ("GET", manifest)]


def test_pull__a_thousand_times_within_the_ttl__nothing_is_asked(fleet: World) -> None:
    push(fleet, "plain.test", "warm")
    upstream, target = fleet["plain.test"], "/v2/plain.test/library/warm/manifests/1"
    for replica in fleet.all:
        digest(pull(replica, "plain.test/library/warm:1"))
    upstream.counters.clear()
    commands = fleet.replicas[0].metric("layover_fleet_seconds_count", operation="consult")
    connections = [Door(replica.port).connect() for replica in fleet.all[:3]]
    for connection in islice(cycle(connections), 1000):
        assert exchange(connection, "GET", target, ()).status == 200
    for connection in connections:
        connection.close()
    assert asked(upstream, "library/warm") == []
    assert fleet.replicas[0].metric("layover_fleet_seconds_count", operation="consult") == commands


def test_pull__expired_on_all__one_head(fleet: World) -> None:
    push(fleet, "plain.test", "expiring", "short")
    image, upstream = "plain.test/library/expiring:short", fleet["plain.test"]
    fleet.at_once(lambda replica: pull(replica, image))
    expired = time.monotonic() + TTL + 0.1
    assert asked(upstream, "library/expiring") == [("GET", "short")]
    wait_for(expired)
    found = fleet.at_once(lambda replica: pull(replica, image))
    assert len({digest(each) for each in found}) == 1
    assert not [each for each in found if "stale" in status(each)]
    assert asked(upstream, "library/expiring") == [("GET", "short"), ("HEAD", "short")]


def test_pull__moved__one_head_and_one_get(fleet: World) -> None:
    push(fleet, "plain.test", "moving", "short")
    image, upstream = "plain.test/library/moving:short", fleet["plain.test"]
    fleet.at_once(lambda replica: pull(replica, image))
    expired = time.monotonic() + TTL + 0.1
    moved = push(fleet, "plain.test", "moving", "short", seed=1)
    wait_for(expired)
    found = fleet.at_once(lambda replica: pull(replica, image))
    assert {digest(each) for each in found} == {moved.index.digest}
    new = asked(upstream, "library/moving")[1:]
    assert new == [("HEAD", "short"), ("GET", moved.index.digest)]


def test_pull__pulled_elsewhere_long_ago__a_head_and_no_get(fleet: World) -> None:
    pushed = push(fleet, "plain.test", "old", "short")
    image, upstream = "plain.test/library/old:short", fleet["plain.test"]
    digest(pull(fleet.replicas[0], image))
    wait_for(time.monotonic() + TTL + 0.1)
    assert digest(pull(fleet.replicas[3], image)) == pushed.index.digest
    assert asked(upstream, "library/old") == [("GET", "short"), ("HEAD", "short")]


def test_pull__missing__asked_once(fleet: World) -> None:
    found = fleet.at_once(lambda replica: pull(replica, "plain.test/library/missing:1"))
    assert {each.status for each in found} == {404}
    assert asked(fleet["plain.test"], "library/missing") == [("GET", "1")]


def test_pull__deleted__asked_once_and_confirmed_once(fleet: World) -> None:
    push(fleet, "plain.test", "deleted", "short")
    image, upstream = "plain.test/library/deleted:short", fleet["plain.test"]
    fleet.at_once(lambda replica: pull(replica, image))
    expired = time.monotonic() + TTL + 0.1
    upstream.remove("library/deleted", "short")
    wait_for(expired)
    found = fleet.at_once(lambda replica: pull(replica, image))
    assert {each.status for each in found} == {404}
    assert asked(upstream, "library/deleted") == [("GET", "short"), ("HEAD", "short"), ("GET", "short")]


def test_pull__limited_on_one__the_others_do_not_ask(fleet: World) -> None:
    held = push(fleet, "limited.test", "held", "short")
    upstream = fleet["limited.test"]
    fleet.at_once(lambda replica: pull(replica, "limited.test/library/held:short"))
    wait_for(time.monotonic() + TTL + 0.1)
    upstream.dials.failures = [Failure(429, retry_after="600")]
    assert pull(fleet.replicas[0], "limited.test/library/absent:1").status == 429
    answer = pull(fleet.replicas[0], "limited.test/library/held:short")
    assert (digest(answer), status(answer)) == (held.index.digest, stale("429"))
    upstream.dials.failures = []
    for replica in fleet.all:
        # What one hears the others hear a moment later. Whoever asks before hears that there is no such thing.
        until(_is_limited(replica), f"{replica.store.name} does not ask")
    upstream.counters.clear()
    found = fleet.at_once(lambda replica: pull(replica, "limited.test/library/another:1"))
    assert {each.status for each in found} == {429}
    assert {600 >= int(each.headers["Retry-After"]) > 400 for each in found} == {True}
    found = fleet.at_once(lambda replica: pull(replica, "limited.test/library/held:short"))
    assert {(digest(each), status(each)) for each in found} == {(held.index.digest, stale("429"))}
    assert upstream.counters.requests() == 0


def _is_limited(replica: Member) -> Callable[[], bool]:
    names = (f"limited.test/library/other{number}:{replica.port}" for number in count())
    return lambda: pull(replica, next(names)).status == 429


def test_pull__quota__is_that_of_all(fleet: World) -> None:
    upstream = fleet["counted.test"]
    push(fleet, "counted.test", "expiring", "short")
    upstream.dials.manifest_quota = QUOTA
    fleet.at_once(lambda replica: pull(replica, "counted.test/library/expiring:short"))
    expired = time.monotonic() + TTL + 0.1
    assert upstream.dials.manifest_quota == QUOTA - 1
    upstream.dials.manifest_quota = 12
    push(fleet, "counted.test", "another")
    digest(pull(fleet.replicas[0], "counted.test/library/another:1"))
    for replica in fleet.all:
        until(_has_left(replica, 11), f"{replica.store.name} knows what is left")
        assert replica.metric("layover_upstream_quota_limit", upstream="counted.test") == QUOTA
    wait_for(expired)
    found = fleet.at_once(lambda replica: pull(replica, "counted.test/library/expiring:short"))
    assert {status(each) for each in found} == {stale("quota")}
    assert asked(upstream, "library/expiring") == [("GET", "short")]


def _has_left(replica: Member, remaining: int) -> Callable[[], bool]:
    return lambda: replica.metric("layover_upstream_quota_remaining", upstream="counted.test") == remaining


def test_pull__denied_to_nobody__is_there_for_who_has_credentials(fleet: World) -> None:
    upstream = fleet["closed.test"]
    upstream.dials.auth = "bearer"
    upstream.dials.users = {USER["username"]: USER["password"]}
    upstream.dials.private = {"library/private"}
    upstream.dials.token_denied = 401
    image = push(fleet, "closed.test", "private")
    name = "closed.test/library/private:1"
    *nobodies, robot = fleet.all
    for replica in nobodies:
        assert pull(replica, name).status in {403, 404}
    assert len(asked(upstream, "library/private")) <= 1
    assert digest(pull(robot, name)) == image.index.digest
    for replica in nobodies:
        assert pull(replica, name).status in {403, 404}
        assert pull(replica, f"closed.test/library/private@{image.index.digest}").status in {403, 404}
