"""A purge or a pin that one replica is told holds on all, also on one that was away, and without Redis."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from mirror.store.records import Carried
from tests.chaos.reader import Client, get
from tests.chaos.scene import eventually
from tests.fleet.line import Line
from tests.fleet.servers import Valkey
from tests.operator import call, files, hexes, member, pins, told
from tests.replica import Replica
from tests.store.stock import REPOSITORY, opened
from tests.store.stock import Image as StockedImage
from tests.upstream import Image, Upstream

APP = "docker.io/library/app:1"
_ORDERS = "{layover}:1:orders"
# What is promised within a second is polled for longer only as machines may be slow.
_PATIENCE = 20.0


class Fleet(NamedTuple):
    """Three replicas that hold the images `app` and `other`."""

    replicas: list[Replica]
    upstream: Upstream
    valkey: Valkey
    app: Image
    other: Image

    def pull(self, replica: Replica, image: Image) -> None:
        """Pull an image whole."""
        Client(replica.url, image).wait().assert_whole()

    def is_tagged(self, replica: Replica) -> bool:
        """Say whether a replica knows where the tag of `app` points, and if not have it find out."""
        get(replica.url, "/v2/library/app/manifests/1")
        return told(replica, "GET", "/inspect", what="app:1")["digest"] is not None

    def is_gone(self, replica: Replica) -> bool:
        """Say whether a replica has nothing of `app`, by its files and by its own word."""
        listed = [each["image"] for each in told(replica, "GET", "/images")["images"]]
        return not files(replica) & hexes(self.app) and APP not in listed


@pytest.fixture
def fleet(request: pytest.FixtureRequest, tmp_path: Path, valkey: Valkey) -> Iterator[Fleet]:
    with ExitStack() as running:
        upstream = running.enter_context(Upstream())
        app = upstream.push_image("library/app", "1", ["linux/amd64"], [30_000, 200_000], 1, raw=True)
        other = upstream.push_image("library/other", "1", ["linux/amd64"], [40_000], 2, raw=True)
        settings = {"LAYOVER_SERVER__WORKERS": getattr(request, "param", "1")}
        replicas = [
            running.enter_context(member(tmp_path, name, valkey.url, upstream, settings)) for name in ("a", "b", "c")
        ]
        whole = Fleet(replicas, upstream, valkey, app, other)
        for replica in replicas:
            whole.pull(replica, app)
            whole.pull(replica, other)
        yield whole


def _is_met(replica: Replica) -> bool:
    """Say whether a replica is a proven member, and has met another."""
    fleet = told(replica, "GET", "/fleet")
    return bool(fleet["is_up"]) and len(fleet["replicas"]) > 1


def until(condition: Callable[[], bool], what: str) -> None:
    eventually(condition, what, _PATIENCE)


@pytest.mark.parametrize("fleet", ["1", "2"], indirect=True, ids=["one door", "two doors"])
def test_purge__is_carried_out_everywhere__and_by_one_that_was_stopped_before_it_serves(fleet: Fleet) -> None:
    a, b, c = fleet.replicas
    assert c.stop() == 0
    began = time.monotonic()
    done = told(a, "POST", "/purge", {"what": "app:1"})
    assert (done["what"], done["reach"], done["tags"]) == (APP, "fleet", 1)
    assert fleet.is_gone(a)
    until(lambda: fleet.is_gone(b), "it is gone on the other replica")
    assert time.monotonic() - began < _PATIENCE
    c.start()
    assert not files(c) & hexes(fleet.app)
    assert fleet.is_gone(c)
    for replica in fleet.replicas:
        assert hexes(fleet.other) <= files(replica)
    fleet.upstream.counters.clear()
    fleet.pull(c, fleet.app)
    layer = fleet.app.layers[1].digest
    assert fleet.upstream.counters.sent(layer) == fleet.app.layers[1].size, "nothing but the upstream has it"


def test_pull__after_a_purge__is_served_by_no_sibling_that_has_not_heard_of_it(tmp_path: Path, valkey: Valkey) -> None:
    with Upstream() as upstream, Line() as line:
        image = upstream.push_image("library/app", "1", ["linux/amd64"], [30_000, 200_000], 1, raw=True)
        layer = image.layers[1]
        # What the second replica says to Redis passes over a line, which will let nothing through.
        relay = line.relay("of redis", int(valkey.url.rpartition(":")[2].partition("/")[0]))
        far = member(tmp_path, "b", f"redis://127.0.0.1:{relay}", upstream)
        with member(tmp_path, "a", valkey.url, upstream) as near, far:
            until(lambda: all(_is_met(each) for each in (near, far)), "they know one another")
            Client(far.url, image).wait().assert_whole()
            Client(near.url, image).wait().assert_whole()
            assert upstream.counters.sent(layer.digest) == layer.size, "it came from the sibling"
            line.swallow()
            assert told(near, "POST", "/purge", {"what": "app:1"})["reach"] == "fleet"
            Client(near.url, image).wait().assert_whole()
            assert upstream.counters.sent(layer.digest) == 2 * layer.size
            assert hexes(image) <= files(far), "it has not heard of the purge"
            line.heal()
            until(lambda: not hexes(image) & files(far), "it hears of it later")


def test_pull__as_a_purge_comes__is_answered_and_kept(fleet: Fleet) -> None:
    a, b, c = fleet.replicas
    manifest = "/v2/library/app/manifests/1"
    for _ in range(20):
        told(b, "POST", "/purge", {"what": "app:1"})
        # One that has heard of it may be told what another found out that has yet to.
        assert [get(each.url, manifest).status for each in (a, c, b)] == [200, 200, 200]
        until(
            lambda: all(fleet.is_tagged(each) for each in fleet.replicas), "who has heard of it keeps what came later"
        )


def test_purge__without_redis__reaches_the_others_once_it_is_back(fleet: Fleet) -> None:
    a, b, c = fleet.replicas
    fleet.valkey.kill()
    until(lambda: not told(a, "GET", "/fleet")["is_up"], "the replica knows that Redis is away")
    assert told(a, "POST", "/purge", {"what": "docker.io/library/app*"})["reach"] == "later"
    assert fleet.is_gone(a)
    assert c.stop() == 0
    c.start()
    assert hexes(fleet.app) <= files(b) & files(c)
    fleet.valkey.start()
    until(lambda: fleet.is_gone(b) and fleet.is_gone(c), "it is gone on the others")


def test_pin__survives_an_empty_redis_and_the_loss_of_an_index(fleet: Fleet) -> None:
    a, b, c = fleet.replicas
    told(a, "POST", "/pins", {"what": "app:1"})
    told(b, "POST", "/pins", {"what": "docker.io/library/other:*"})
    both = [APP, "docker.io/library/other:*"]
    until(lambda: all(pins(each) == both for each in fleet.replicas), "all know the pins")
    assert c.stop() == 0
    shutil.rmtree(c.store)
    fleet.valkey.restart()
    c.start()
    until(lambda: pins(c) == both, "a replica that comes new to an empty Redis is told by the others")
    assert b.stop() == 0
    shutil.rmtree(b.store / "index")
    fleet.valkey.kill()
    b.start()
    assert pins(b) == both
    report = told(b, "GET", "/inspect", what="app:1")
    assert report["pinned_by"] == [APP]
    until(lambda: all(part["is_pinned"] for part in told(b, "GET", "/inspect", what="app:1")["parts"]), "all below too")
    fleet.valkey.start()
    told(b, "DELETE", "/pins", what="*")
    until(lambda: not any(pins(each) for each in fleet.replicas), "an unpin reaches all")
    assert call(a, "DELETE", "/pins", query={"what": "app:1"})[0] == 404


async def test_unpin__is_heard_late__ends_no_pin_that_was_ordered_after_it(tmp_path: Path, valkey: Valkey) -> None:
    ordered = {"a": ("pin", APP, 10), "b": ("unpin", "docker.io/library/*", 20)}
    now = time.time()
    known = {
        name: Carried(verb, what, int((now - ago) * 1000), now - ago) for name, (verb, what, ago) in ordered.items()
    }
    for name, order in known.items():
        async with opened(tmp_path / name) as store:
            await store.remember_order(order.key, order)
    with (
        Upstream() as upstream,
        member(tmp_path, "b", valkey.url, upstream) as b,
        member(tmp_path, "a", valkey.url, upstream) as a,
    ):
        until(lambda: pins(b) == [APP], "the pin is heard of")
        until(lambda: '"order":"unpin"' in a.log.read_text(), "the unpin is heard of")
        assert pins(a) == [APP]


async def test_give_back__old_orders_too__whenever_redis_has_lost_them(tmp_path: Path, valkey: Valkey) -> None:
    """Also those that are far older than the last: a fail-over takes only what came shortly before."""
    now = time.time()
    ordered = [("pin", APP, 10 * 86400), ("purge", "docker.io/library/*", 3600), ("pin", "docker.io/library/other", 5)]
    known = [Carried(verb, what, int((now - ago) * 1000), now - ago) for verb, what, ago in ordered]
    async with opened(tmp_path / "a") as store:
        for order in known:
            await store.remember_order(order.key, order)

    def given() -> list[int]:
        return [int(number) for _, number in valkey.ask("ZRANGE", _ORDERS, 0, -1, "WITHSCORES")]

    numbers = [order.number for order in known]
    with Upstream() as upstream, member(tmp_path, "a", valkey.url, upstream):
        until(lambda: given() == numbers, "what Redis lost while all replicas were away is given back")
        valkey.restart()
        until(lambda: given() == numbers, "what it lost while they ran is given back")


def test_status__shows_the_fleet(fleet: Fleet) -> None:
    a = fleet.replicas[0]
    until(lambda: len(told(a, "GET", "/fleet")["replicas"]) == 3, "all are seen")
    replicas = told(a, "GET", "/status")["fleet"]["replicas"]
    assert [each["label"] for each in replicas] == ["a", "b", "c"]
    assert [each["is_this"] for each in replicas] == [True, False, False]
    assert [each["url"] for each in replicas[1:]] == [each.url for each in fleet.replicas[1:]]


@pytest.mark.parametrize(("days", "is_kept"), [(31, False), (29, True)])
async def test_starts_without_tags_and_pins__after_more_than_30_days_away(
    tmp_path: Path, valkey: Valkey, days: int, is_kept: bool
) -> None:
    """Orders are kept for so long: whoever missed more cannot tell what was purged."""
    image = StockedImage(1)
    async with opened(tmp_path / "a") as store:
        image.put(store)
        heard = time.time() - days * 86400
        await store.remember_order("o:heard:", Carried("heard", "", 0, heard))
        pin = Carried("pin", APP, 5, heard)
        await store.remember_order(pin.key, pin)
    with Upstream() as upstream, member(tmp_path, "a", valkey.url, upstream) as replica:
        listed = [each["image"] for each in told(replica, "GET", "/images")["images"]]
        assert listed == [f"{REPOSITORY}:{image.tag}" if is_kept else f"{REPOSITORY}@{image.digest}"]
        assert pins(replica) == ([APP] if is_kept else [])
