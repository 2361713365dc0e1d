"""What upstreams say, asked once by six replicas, one of them with a clock that is an hour off."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count, cycle, islice

import pytest

from tests.conformance.wire import Answer, Door, exchange
from tests.fleet.replicas import Member, Replicas
from tests.fleet.servers import Valkey, until
from tests.hub.pulling import asked, digest, pull, stale, status, wait_for
from tests.replica import NO_PREFETCH
from tests.upstream import Failure, Image, Upstream

HOSTS = ("plain.test", "limited.test", "counted.test", "closed.test", "members.test")
PLATFORM = "linux/amd64"
TTL = 6.0
QUOTA = 100
USER = {"username": "robot", "password": "swordfish"}
SETTINGS = {
    **NO_PREFETCH,
    "LAYOVER_FRESHNESS__RULES": json.dumps(
        [{"match": "*:short", "ttl": f"{int(TTL)}s"}, {"match": "*:always", "ttl": "0s"}]
    ),
    "LAYOVER_FRESHNESS__NEGATIVE_TTL": "60s",
    "LAYOVER_FRESHNESS__REVALIDATE_TIMEOUT": "2s",
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
    urls = {host: upstream.url for host, upstream in upstreams.items()}
    regions = ("eu", "eu", "eu", "us", "us", "us")
    replicas = Replicas(tmp_path_factory.mktemp("fleet"), regions, redis.url, urls, settings=SETTINGS)
    try:
        replicas.prepare()
        replicas[4].shift_clock(3600)
        for number in range(len(regions)):
            tables = {host: {"url": url} for host, url in urls.items()}
            tables["members.test"] |= USER
            if number == 5:
                tables["closed.test"] |= {**USER, "private": "anyone"}
            replicas[number]._environment["LAYOVER_UPSTREAMS"] = json.dumps(tables)
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


@pytest.fixture(scope="module")
def expired(fleet: World) -> dict[str, Image]:
    """Return images by name that were pulled through every replica, and whose tags are fresh no more."""
    wanted = [
        ("plain.test", "expiring"),
        ("plain.test", "moving"),
        ("plain.test", "deleted"),
        ("plain.test", "orphan"),
        ("plain.test", "neighbour"),
        ("limited.test", "held"),
        ("counted.test", "counted"),
    ]
    images = {name: push(fleet, host, name, "short") for host, name in wanted}
    for host, name in wanted:
        fleet.at_once(partial(pull, image=f"{host}/library/{name}:short"))
        assert asked(fleet[host], f"library/{name}") == [("GET", "short")]
    for name in ("old", "elsewhere"):
        images[name] = push(fleet, "plain.test", name, "short")
        digest(pull(fleet.replicas[0], f"plain.test/library/{name}:short"))
    wait_for(time.monotonic() + TTL + 0.1)
    for upstream in fleet.upstreams.values():
        upstream.counters.clear()
    return images


def test_pull__expired_on_all__one_head(fleet: World, expired: dict[str, Image]) -> None:
    found = fleet.at_once(lambda replica: pull(replica, "plain.test/library/expiring:short"))
    assert {digest(each) for each in found} == {expired["expiring"].index.digest}
    assert not [each for each in found if "stale" in status(each)]
    assert not [each for each in found if int(each.headers["Age"]) > 60]
    assert asked(fleet["plain.test"], "library/expiring") == [("HEAD", "short")]


@pytest.mark.usefixtures("expired")
def test_pull__moved__one_head_and_one_get(fleet: World) -> None:
    moved = push(fleet, "plain.test", "moving", "short", seed=1)
    found = fleet.at_once(lambda replica: pull(replica, "plain.test/library/moving:short"))
    assert {digest(each) for each in found} == {moved.index.digest}
    assert asked(fleet["plain.test"], "library/moving") == [("HEAD", "short"), ("GET", moved.index.digest)]


def test_pull__pulled_elsewhere_long_ago__a_head_and_no_get(fleet: World, expired: dict[str, Image]) -> None:
    assert digest(pull(fleet.replicas[3], "plain.test/library/old:short")) == expired["old"].index.digest
    assert asked(fleet["plain.test"], "library/old") == [("HEAD", "short")]


def test_pull__pulled_elsewhere_long_ago__the_registry_is_down(fleet: World, expired: dict[str, Image]) -> None:
    image, name = expired["elsewhere"], "plain.test/library/elsewhere"
    parts = [
        *(f"/v2/{name}/manifests/{each.digest}" for each in image.manifests),
        *(f"/v2/{name}/blobs/{each.digest}" for each in (*image.configs, *image.layers)),
    ]
    assert {Door(fleet.replicas[0].port).ask("GET", part).status for part in parts} == {200}
    fleet["plain.test"].dials.failures = [Failure(503)]
    for _ in range(2):
        answer = pull(fleet.replicas[3], f"{name}:short")
        assert digest(answer) == image.index.digest
        assert status(answer) == stale("5xx")
        assert int(answer.headers["Age"]) >= TTL
    assert {Door(fleet.replicas[3].port).ask("GET", part).status for part in parts} == {200}
    assert pull(fleet.replicas[3], f"{name}:unknown").status == 503


@pytest.mark.usefixtures("expired")
def test_pull__deleted__asked_once_and_confirmed_once(fleet: World) -> None:
    fleet["plain.test"].remove("library/deleted", "short")
    found = fleet.at_once(lambda replica: pull(replica, "plain.test/library/deleted:short"))
    assert {each.status for each in found} == {404}
    assert asked(fleet["plain.test"], "library/deleted") == [("HEAD", "short"), ("GET", "short")]


def test_pull__never_fresh__nobody_waits_for_another(fleet: World) -> None:
    push(fleet, "plain.test", "live", "always")
    name, upstream = "plain.test/library/live:always", fleet["plain.test"]
    for replica in fleet.all:
        digest(pull(replica, name))
    assert [each for each in asked(upstream, "library/live") if each[0] == "GET"] == [("GET", "always")]
    moved = push(fleet, "plain.test", "live", "always", seed=1)
    upstream.dials.latency = {"manifest": 0.5}
    places = {replica: place for place, replica in enumerate(fleet.all)}

    def pull_in_turn(replica: Member) -> Answer:
        time.sleep(places[replica] / 10)
        return pull(replica, name)

    found = fleet.at_once(pull_in_turn)
    assert [digest(each) for each in found] == [moved.index.digest] * len(fleet.all)


def test_pull__missing__asked_once(fleet: World) -> None:
    found = fleet.at_once(lambda replica: pull(replica, "plain.test/library/missing:1"))
    assert {each.status for each in found} == {404}
    assert asked(fleet["plain.test"], "library/missing") == [("GET", "1")]


def test_pull__limited_on_one__the_others_do_not_ask(fleet: World, expired: dict[str, Image]) -> None:
    held, upstream = expired["held"], fleet["limited.test"]
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


def test_pull__quota__is_that_of_all(fleet: World, expired: dict[str, Image]) -> None:
    upstream = fleet["counted.test"]
    upstream.dials.manifest_quota, upstream.dials.manifest_quota_limit = 4, QUOTA
    push(fleet, "counted.test", "another")
    digest(pull(fleet.replicas[0], "counted.test/library/another:1"))
    for replica in fleet.all:
        until(_has_left(replica, 3), f"{replica.store.name} knows what is left")
        assert replica.metric("layover_upstream_quota_limit", upstream="counted.test") == QUOTA
    state = expired["counted"].index.digest
    push(fleet, "counted.test", "counted", "short", seed=1)
    found = fleet.at_once(lambda replica: pull(replica, "counted.test/library/counted:short"))
    assert {(digest(each), status(each)) for each in found} == {(state, stale("quota"))}
    assert ("GET", "short") not in asked(upstream, "library/counted")
    assert upstream.dials.manifest_quota == 3


def _has_left(replica: Member, remaining: int) -> Callable[[], bool]:
    return lambda: replica.metric("layover_upstream_quota_remaining", upstream="counted.test") == remaining


def test_pull__denied_to_nobody__is_there_for_who_has_credentials(fleet: World) -> None:
    upstream = fleet["closed.test"]
    _close(upstream, "library/private")
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


@pytest.mark.parametrize("is_private", [False, True])
def test_pull__with_credentials__one_verdict(fleet: World, is_private: bool) -> None:
    upstream, name = fleet["members.test"], f"verdict{int(is_private)}"
    _close(upstream, f"library/{name}" if is_private else "library/another")
    push(fleet, "members.test", name)
    found = fleet.at_once(lambda replica: pull(replica, f"members.test/library/{name}:1"))
    assert {each.status for each in found} == {403 if is_private else 200}
    # Who is challenged for the first time asks once more, with a token, which nobody is given for what is private.
    requests = asked(upstream, f"library/{name}")
    assert requests.count(("HEAD", "1")) <= (1 if is_private else 2)
    assert requests.count(("GET", "1")) <= (0 if is_private else 2)


@pytest.mark.usefixtures("expired")
def test_pull__who_asks_is_killed__another_asks(fleet: World) -> None:
    upstream, image = fleet["plain.test"], "plain.test/library/orphan:short"
    asker, waiter = fleet.replicas[2], fleet.replicas[3]
    upstream.dials.black_hole, upstream.dials.black_hole_times = {"manifest"}, 1
    with ThreadPoolExecutor() as threads:
        asking = threads.submit(pull, asker, image)
        until(lambda: asked(upstream, "library/orphan"), "the upstream is asked")
        # The other one waits for its answer, and has its own for the meantime.
        assert status(pull(waiter, image)) == stale("timeout")
        assert asked(upstream, "library/orphan") == [("HEAD", "short")]
        assert "stale" not in status(pull(waiter, "plain.test/library/neighbour:short"))
        assert status(asking.result()) == stale("timeout")
        asker.kill()
    try:
        until(lambda: "stale" not in status(pull(waiter, image)), "another one asks")
    finally:
        fleet.replicas.start()


def test_pull__who_asks_for_what_nobody_has_is_killed__another_asks(fleet: World) -> None:
    pushed = push(fleet, "plain.test", "abandoned")
    upstream, image = fleet["plain.test"], "plain.test/library/abandoned:1"
    asker, waiter = fleet.replicas[2], fleet.replicas[3]
    upstream.dials.black_hole, upstream.dials.black_hole_times = {"manifest"}, 1
    with ThreadPoolExecutor() as threads:
        asking = threads.submit(pull, asker, image)
        until(lambda: asked(upstream, "library/abandoned"), "the upstream is asked")
        waiting = threads.submit(pull, waiter, image)
        asker.kill()
        try:
            assert digest(waiting.result()) == pushed.index.digest
            assert asking.exception() is not None
        finally:
            fleet.replicas.start()
    assert asked(upstream, "library/abandoned") == [("GET", "1")] * 2


@pytest.mark.parametrize("way", ["pause", "kill"])
def test_pull__redis_goes_away__each_asks_for_itself(fleet: World, redis: Valkey, way: str) -> None:
    pushed = push(fleet, "plain.test", f"alone-{way}")
    image = f"plain.test/library/alone-{way}:1"
    waited = [replica.metric("layover_fleet_seconds_sum", operation="consult") for replica in fleet.all]
    (redis.pause if way == "pause" else redis.kill)()
    try:
        found = fleet.at_once(lambda replica: pull(replica, image))
        assert {digest(each) for each in found} == {pushed.index.digest}
        # 250 ms at most, and what a machine takes that is busy with six replicas.
        for replica, before in zip(fleet.all, waited, strict=True):
            assert replica.metric("layover_fleet_seconds_sum", operation="consult") - before < 1
        assert set(asked(fleet["plain.test"], f"library/alone-{way}")) == {("GET", "1")}
        until(lambda: not any(replica.metric("layover_fleet_up") for replica in fleet.all), "all know that it is away")
    finally:
        (redis.resume if way == "pause" else redis.start)()
    fleet.replicas.wait()
    push(fleet, "plain.test", f"again-{way}")
    fleet.at_once(lambda replica: pull(replica, f"plain.test/library/again-{way}:1"))
    assert asked(fleet["plain.test"], f"library/again-{way}") == [("GET", "1")]


def _close(upstream: Upstream, repository: str) -> None:
    """Have a repository closed to all but the robot."""
    upstream.dials.auth = "bearer"
    upstream.dials.users = {USER["username"]: USER["password"]}
    upstream.dials.private = {repository}
    upstream.dials.token_denied = 401
