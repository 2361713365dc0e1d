"""Replicas under load lose Redis in every way: no pull fails, and what Redis forgot it is told again."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.fleet.callers import Callers
from tests.fleet.losing import LOSSES, Scene, fleet, told
from tests.fleet.servers import until
from tests.operator import told as answered

_ORDERS = "{layover}:1:orders"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with fleet(tmp_path_factory.mktemp("fleet")) as running:
        yield running


def test_pull__redis_is_lost_in_every_way__no_error(scene: Scene) -> None:
    asked, works = scene.replicas[0], scene.works("lost")
    with Callers(asked.url, works) as callers:
        for loss in LOSSES:
            loss.begin(scene)
            until(lambda: asked.metric("layover_fleet_up") == 0, f"it is known that Redis {loss.name}")
            # Long enough for everything to be asked for while nobody can be asked.
            time.sleep(0.5)
            loss.end(scene)
            until(lambda: scene.is_whole, f"the fleet is back after Redis {loss.name}")
    assert [call.error for call in callers.calls if call.error] == []
    assert {call.kind for call in callers.calls} == {work.kind for work in works}


def test_restart__empty__holders_pins_and_purges_are_told_again(scene: Scene) -> None:
    one, other = scene.replicas
    answered(one, "POST", "/pins", {"what": "library/warm"})
    answered(other, "POST", "/purge", {"what": "library/expiring:1"})
    until(lambda: scene.valkey.ask("ZCARD", _ORDERS) == 2, "both orders are given")
    orders = scene.valkey.ask("ZRANGE", _ORDERS, 0, -1)
    held = {file.name for each in scene.replicas for file in (each.store / "content").glob("*/*/*")}
    until(lambda: told(scene.valkey) == len(held), "it knows who holds what")
    scene.valkey.restart()
    until(lambda: scene.valkey.ask("ZRANGE", _ORDERS, 0, -1) == orders, "it knows both orders again")
    until(lambda: told(scene.valkey) == len(held), "it knows again who holds what")


def test_keep__nothing_for_ever(scene: Scene) -> None:
    with Callers(scene.replicas[0].url, scene.works("bounded")):
        time.sleep(1.0)
    with scene.valkey.client() as client:
        keys = list(client.scan_iter(count=1000))
        assert len(keys) > 10
        assert [key for key in keys if client.pttl(key) == -1] == []
