"""Limits that one replica met, as the others keep to them."""

from __future__ import annotations

import time
from typing import NamedTuple

import pytest
from prometheus_client import CollectorRegistry

from mirror import config
from mirror.fleet import Fact
from mirror.observe.metrics import HubMetrics, new_registry
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source.upstream import Level, QuotaNews, Quotas, Scopes, failures
from mirror.source.upstream.ask import Ask
from tests.fleet.commons import Commons, Member
from tests.source.conftest import HOST

UPSTREAM = config.Upstream(HOST, HOST, f"https://{HOST}")
WINDOW = 21_600


class Replica(NamedTuple):
    quotas: Quotas
    registry: CollectorRegistry
    member: Member

    def learn(self, remaining: int, identity: str = "", limit: int = 100) -> None:
        """Make a request whose answer tells what is left."""
        allowance = self.quotas.admit(ask(), identity)
        headers = {"RateLimit-Limit": f"{limit};w={WINDOW}", "RateLimit-Remaining": f"{remaining};w={WINDOW}"}
        self.quotas.learn(allowance, ask(), headers)
        self.quotas.leave(allowance)

    def gauge(self) -> float | None:
        return self.registry.get_sample_value("layover_upstream_quota_remaining", {"upstream": HOST})

    def may(self, method: str = "GET", identity: str = "") -> RegistryError | None:
        """Return why a request may not be made."""
        try:
            self.quotas.leave(self.quotas.admit(ask(method), identity))
        except RegistryError as error:
            return error
        return None


def ask(method: str = "GET", upstream: config.Upstream = UPSTREAM) -> Ask:
    return Ask(upstream, Repository(HOST, "app"), "manifest", method, "manifests/1", ErrorCode.MANIFEST_UNKNOWN)


def limited(wait: str) -> failures.UpstreamError:
    return failures.refusal(UPSTREAM, 429, {"Retry-After": wait}, b"", ErrorCode.MANIFEST_UNKNOWN, HOST)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, to be changed; fleet time is far from it."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def commons(clock: list[float]) -> Commons:
    return Commons()


def replica(commons: Commons, name: str, clock: list[float]) -> Replica:
    registry = new_registry()
    member = Member(commons, name, lambda: clock[0] + 1_700_000_000)
    return Replica(Quotas(HubMetrics(registry), QuotaNews(member, Scopes(lambda: "secret"))), registry, member)


@pytest.fixture
def one(commons: Commons, clock: list[float]) -> Replica:
    return replica(commons, "one", clock)


@pytest.fixture
def other(commons: Commons, clock: list[float]) -> Replica:
    return replica(commons, "other", clock)


def test_knows__what_another_learnt(one: Replica, other: Replica, clock: list[float]) -> None:
    other.learn(50)
    clock[0] += 10
    one.learn(19)
    assert (other.quotas.remaining(UPSTREAM), other.quotas.limit(UPSTREAM)) == (19, 100)
    assert other.quotas.level(UPSTREAM) is Level.LOW
    assert other.gauge() == 19
    clock[0] += 10
    other.learn(4)
    assert one.quotas.level(UPSTREAM) is Level.CRITICAL
    assert one.gauge() == 4


def test_knows__what_was_learnt_before_it_asked_anything(one: Replica, commons: Commons, clock: list[float]) -> None:
    one.learn(3)
    late = replica(commons, "late", clock)
    assert late.quotas.level(UPSTREAM) is Level.CRITICAL
    assert late.gauge() == 3


def test_knows_nothing__of_what_others_are_told_as_somebody_else(one: Replica, other: Replica) -> None:
    one.learn(3, "5a1f00c0ffee")
    assert other.quotas.level(UPSTREAM) is Level.PLENTY
    member = UPSTREAM._replace(username="robot")
    assert other.quotas.level(member) is Level.PLENTY
    other.quotas.asked_as(member, "5a1f00c0ffee")
    assert other.gauge() == 3
    assert other.quotas.level(member) is Level.CRITICAL


def test_forgets__when_the_window_is_over(one: Replica, other: Replica, clock: list[float]) -> None:
    other.learn(50)
    one.learn(3)
    clock[0] += WINDOW
    assert other.quotas.level(UPSTREAM) is Level.PLENTY
    assert other.gauge() is None


def test_takes_the_lower__of_what_was_learnt_at_once(one: Replica, other: Replica, clock: list[float]) -> None:
    one.learn(40)
    other.learn(39)
    clock[0] += 0.5
    # Its answer was under way when the lower one came.
    one.learn(40)
    assert other.quotas.remaining(UPSTREAM) == 39
    assert one.quotas.remaining(UPSTREAM) == 39


def test_believes__that_it_recovered(one: Replica, other: Replica, clock: list[float]) -> None:
    other.learn(1)
    clock[0] += 60
    one.learn(99)
    assert other.quotas.remaining(UPSTREAM) == 99


def test_ignores__what_is_older(one: Replica, other: Replica, clock: list[float]) -> None:
    one.learn(5)
    (fact,) = one.member.facts("quota").values()
    clock[0] += 60
    other.learn(90)
    one.member.share(fact)
    assert other.quotas.remaining(UPSTREAM) == 90


def test_pauses__for_as_long_as_another_was_asked_to(one: Replica, other: Replica, clock: list[float]) -> None:
    assert other.may() is None
    one.quotas.limited(ask(), "", limited("30"))
    error = other.may()
    assert error is not None
    assert (error.failure, error.retry_after) == (Failure.TOO_MANY, 30)
    assert other.quotas.is_limited(UPSTREAM)
    assert other.may("HEAD") is None
    clock[0] += 29
    assert other.may() is not None
    clock[0] += 1.1
    assert other.may() is None


def test_pauses__who_asks_for_the_first_time(one: Replica, commons: Commons, clock: list[float]) -> None:
    one.quotas.limited(ask(), "", limited("30"))
    assert replica(commons, "late", clock).may() is not None


def test_does_not_pause__who_asks_as_somebody_else(one: Replica, other: Replica) -> None:
    one.quotas.limited(ask(), "", limited("30"))
    assert other.may(identity="5a1f00c0ffee") is None


def test_probes_once_a_minute__all_together(one: Replica, other: Replica, clock: list[float]) -> None:
    other.learn(50)
    clock[0] += 10
    one.learn(0)
    assert other.may() is not None
    clock[0] += 61
    assert other.may() is None


@pytest.mark.parametrize("value", [b"", b"\xff", b"\x92\x00\x01", b"\x92\x64\xff", b"\x93\x01\x01\x01"])
def test_ignores__what_makes_no_sense(one: Replica, other: Replica, value: bytes) -> None:
    other.learn(50)
    (key,) = one.member.facts("quota")
    one.member.share(Fact("quota", key, value, one.member.time, one.member.time + 60))
    assert other.quotas.remaining(UPSTREAM) == 50
