"""Whom to ask first, and whom not for a while."""

from __future__ import annotations

import math

from mirror.source.sibling.standing import Standings
from tests.source.sibling.member import sibling_at


def _standings(**latencies: float) -> Standings:
    standings = Standings("here")
    for identity, seconds in latencies.items():
        standings.of(identity).answered(seconds)
    return standings


def test_order__own_region_first__then_the_nearest() -> None:
    standings = _standings(far=0.2, near=0.05, own=0.3)
    siblings = [sibling_at("", each, "there") for each in ("unknown", "far", "near")]
    own = sibling_at("", "own", "here")
    assert [each.identity for each in standings.order([*siblings, own], 0)] == ["own", "near", "far", "unknown"]


def test_order__as_near_as_one_another__who_has_less_to_do() -> None:
    standings = _standings(busy=0.001, idle=0.002)
    siblings = [sibling_at("", "busy", load=5), sibling_at("", "idle", load=1)]
    assert [each.identity for each in standings.order(siblings, 0)] == ["idle", "busy"]


def test_eject__again_and_again__for_longer_each_time() -> None:
    standing = Standings("here").of("b")
    now, pauses = 0.0, []
    for _ in range(8):
        standing.failed(now)
        standing.failed(now)
        began = now
        while standing.is_ejected(now):
            now += 0.5
        pauses.append(now - began)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    standing.failed(now + 61)
    assert not standing.is_ejected(now + 62), "what is long ago is forgotten"
    standing.failed(now + 62)
    assert standing.is_ejected(now + 63)
    standing.worked()
    standing.failed(now + 63)
    assert standing.is_ejected(now + 63.5)
    assert not standing.is_ejected(now + 64)


def test_latency__one_slow_answer__changes_little() -> None:
    standing = Standings("here").of("b")
    assert standing.latency == math.inf
    standing.answered(0.1)
    standing.answered(10)
    assert standing.latency < 0.15
    standing.answered(0.05)
    assert standing.latency == 0.05
