"""Replicas that race to let go of what all of them have: one copy stays, whatever happens to Redis meanwhile."""

from __future__ import annotations

import http.client
import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos.reader import get
from tests.eviction.scene import MIB, evictions, is_held
from tests.fleet.replicas import Member, Replicas
from tests.fleet.servers import Sentinels, Valkey, until
from tests.hub import pulling
from tests.replica import NO_PREFETCH
from tests.upstream import Upstream

# Each round is a digest that all three hold and let go at the same time, beside spares that all of them hold.
ROUNDS = int(os.environ.get("LAYOVER_EVICTION_ROUNDS", "100"))
_AT_ONCE = 50
_SPARES = 5
_SIZE = 3000
_LARGE = MIB - 4096
_REPOSITORY = "library/race"
_SETTINGS = {**NO_PREFETCH, "LAYOVER_STORE__UNUSED_FOR": "2s", "LAYOVER_FLEET__MIN_COPIES": "1"}
_REGIONS = ("west", "west", "east")
_numbers = itertools.count(1)


def pull(member: Member, digests: Iterable[str]) -> None:
    """Pull blobs through one replica."""
    connection = http.client.HTTPConnection("127.0.0.1", member.port, timeout=60)
    try:
        for digest in digests:
            connection.request("GET", f"/v2/{_REPOSITORY}/blobs/{digest}")
            answer = connection.getresponse()
            assert (answer.status, len(answer.read())) == (200, _SIZE)
    finally:
        connection.close()


def pushed(upstream: Upstream, count: int) -> list[str]:
    """Push so many blobs that nobody has."""
    return [upstream.push_random_blob(_REPOSITORY, _SIZE, next(_numbers)) for _ in range(count)]


def pull_all(members: Sequence[Member], digests: Sequence[str]) -> None:
    """Pull blobs through several replicas at once."""
    with ThreadPoolExecutor(len(members)) as clients:
        list(clients.map(lambda member: pull(member, digests), members))


@contextmanager
def forgetful(
    folder: Path, redis_url: str, count: int = 3, settings: Mapping[str, str] | None = None
) -> Iterator[tuple[Upstream, Replicas]]:
    """Run a registry, and so many replicas that let go what was not used for two seconds."""
    settings = _SETTINGS | dict(settings or {})
    with Upstream() as upstream:
        replicas = Replicas(folder, _REGIONS[:count], redis_url, {"docker.io": upstream.url}, settings=settings)
        with replicas.near():
            yield upstream, replicas


@contextmanager
def in_use(members: Sequence[Member], digests: Sequence[str]) -> Iterator[None]:
    """Have clients go on pulling blobs, so that they are spares that nothing makes go."""
    over = threading.Event()

    def use() -> None:
        while not over.wait(0.3):
            pull_all(members, digests)

    pull_all(members, digests)
    thread = threading.Thread(target=use)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def holders(members: Iterable[Member], digest: str) -> int:
    """Return in how many stores a digest lies."""
    return sum(is_held(member.store, digest) for member in members)


def went(members: Iterable[Member], reason: str = "unused") -> Counter[str]:
    """Return how often each digest went."""
    trails = [evictions(member.store) for member in members]
    return Counter(each["digest"] for trail in trails for each in trail if each["reason"] == reason)


def race(upstream: Upstream, members: Sequence[Member], count: int) -> list[str]:
    """Have all replicas hold so many digests, and wait until one copy of each is left; return the digests."""
    digests = pushed(upstream, count)
    pull_all(members, digests)
    left = set(digests)

    def is_over() -> bool:
        left.difference_update([each for each in left if holders(members, each) == 1])
        return not left

    until(is_over, "one copy of each is left", 100)
    return digests


@pytest.mark.timeout(3600)
def test_lets_two_of_three_go__in_each_round(tmp_path: Path, valkey: Valkey) -> None:
    with forgetful(tmp_path, valkey.url) as (upstream, replicas):
        members = list(replicas)
        spares = pushed(upstream, _SPARES)
        raced: list[str] = []
        with in_use(members, spares):
            while len(raced) < ROUNDS:
                raced += race(upstream, members, min(_AT_ONCE, ROUNDS - len(raced)))
            time.sleep(1)  # what is still about to go goes
            assert {holders(members, digest) for digest in spares} == {3}
        assert {holders(members, digest) for digest in raced} == {1}
        gone = went(members)
        assert {gone[digest] for digest in raced} == {2}
        trail = [each for member in members for each in evictions(member.store) if each["digest"] in set(raced)]
        assert all(each["copies"] >= 1 and each["keeper"] and not each["was_last_copy"] for each in trail)


def test_never_lets_all_three_go__though_redis_fails_over(tmp_path: Path, sentinels: Sentinels) -> None:
    with forgetful(tmp_path, sentinels.url) as (upstream, replicas):
        members = list(replicas)
        digests = pushed(upstream, 150)
        pull_all(members, digests)
        sentinels.fail_over()
        seen = [holders(members, digest) for digest in digests]
        assert min(seen) >= 1
        replicas.wait()
        until(lambda: all(holders(members, digest) == 1 for digest in digests), "one copy of each is left", 90)
        time.sleep(1)
        assert {holders(members, digest) for digest in digests} == {1}


def test_keeps__what_the_keeper_turns_out_to_have_lost(tmp_path: Path, valkey: Valkey) -> None:
    with forgetful(tmp_path, valkey.url, 2) as (upstream, replicas):
        first, second = replicas
        (lost, other) = pushed(upstream, 2)
        with in_use([first], [lost, other]):
            pull(second, [lost, other])
            name = lost.removeprefix("sha256:")
            (second.store / "content" / "sha256" / name[:2] / name).unlink()
        with in_use([second], [other]):
            until(lambda: not is_held(first.store, other), "what the other has went", 90)
        time.sleep(2)
        assert is_held(first.store, lost)


def test_counts_again__who_was_away(tmp_path: Path, valkey: Valkey) -> None:
    with forgetful(tmp_path, valkey.url) as (upstream, replicas):
        members = list(replicas)
        digests = pushed(upstream, 20)
        pull_all(members, digests)
        os.kill(members[2].pid, signal.SIGSTOP)
        try:
            until(lambda: all(holders(members[:2], digest) == 1 for digest in digests), "one of two let go", 60)
        finally:
            os.kill(members[2].pid, signal.SIGCONT)
        until(lambda: all(holders(members, digest) == 1 for digest in digests), "one copy of each is left", 120)
        time.sleep(1)
        assert {holders(members, digest) for digest in digests} == {1}


@contextmanager
def with_stores(folder: Path, redis_url: str, upstream: Upstream, sizes: Sequence[int]) -> Iterator[Replicas]:
    """Run a fleet whose stores may take so many bytes each."""
    settings = {**NO_PREFETCH, "LAYOVER_STORE__MIN_FREE": "0B"}
    regions = ("west",) * len(sizes)
    replicas = Replicas(folder, regions, redis_url, {"docker.io": upstream.url}, settings=settings)
    with replicas.near(sizes):
        yield replicas


def _pull_large(upstream: Upstream, member: Member, count: int, size: int = _LARGE) -> list[str]:
    """Pull so many blobs through a replica, one after the other."""
    digests = [upstream.push_random_blob(_REPOSITORY, size, next(_numbers)) for _ in range(count)]
    for digest in digests:
        assert get(member.url, f"/v2/{_REPOSITORY}/blobs/{digest}").digest == digest
    return digests


def test_lets_spares_go_before_last_copies__for_want_of_room(tmp_path: Path, valkey: Valkey) -> None:
    with Upstream() as upstream, with_stores(tmp_path, valkey.url, upstream, (16 * MIB, 8 * MIB)) as replicas:
        small, full = replicas[0], replicas[1]
        shared = _pull_large(upstream, small, 7)
        own = _pull_large(upstream, full, 3)  # the coldest, and nobody else's
        for digest in shared:
            assert get(full.url, f"/v2/{_REPOSITORY}/blobs/{digest}").digest == digest
        until(lambda: sum(went([full], "pressure").values()) >= 2, "two went")
        gone = went([full], "pressure")
        assert gone.keys() <= set(shared), "a last copy went beside spares"
        # Nothing but last copies is left to go at some time.
        _pull_large(upstream, full, 8)
        assert any(each["was_last_copy"] for each in evictions(full.store))
        assert all(each["copies"] == 0 or each["keeper"] for each in evictions(full.store))
        assert set(own) - set(went([small], "pressure"))


def test_offers_last_copies__to_a_replica_with_room(tmp_path: Path, valkey: Valkey) -> None:
    with Upstream() as upstream, with_stores(tmp_path, valkey.url, upstream, (8 * MIB, 64 * MIB)) as replicas:
        digests = _pull_large(upstream, replicas[0], 100, MIB // 8)
        until(lambda: any(is_held(replicas[1].store, digest) for digest in digests), "one was taken", 30)
        until(lambda: any(each["keeper"] for each in evictions(replicas[0].store)), "what was taken went", 30)
        # Of what is taken some may be slower to come from the sibling than from the upstream.
        assert upstream.counters.sent() <= 1.5 * len(digests) * MIB // 8


def test_lets_nothing_unused_go__while_redis_is_away(tmp_path: Path, valkey: Valkey) -> None:
    with forgetful(tmp_path, valkey.url, 2) as (upstream, replicas):
        members = list(replicas)
        digests = pushed(upstream, 10)
        valkey.kill()
        pull_all(members, digests)
        time.sleep(4)  # twice unused_for
        assert {holders(members, digest) for digest in digests} == {2}
        valkey.start()
        until(lambda: all(holders(members, digest) == 1 for digest in digests), "one copy of each is left", 60)


@pytest.mark.parametrize("ttl", ["1h", "1s"], ids=["fresh", "expired"])
def test_serves_by_tag__what_went_here_and_another_kept(tmp_path: Path, valkey: Valkey, ttl: str) -> None:
    with forgetful(tmp_path, valkey.url, 2, {"LAYOVER_FRESHNESS__TAG_TTL": ttl}) as (upstream, replicas):
        members, name = list(replicas), "docker.io/library/kept:1"
        digest = upstream.push_image("library/kept", "1", ["linux/amd64"], [1000], raw=True).index.digest
        assert {pulling.digest(pulling.pull(member, name)) for member in members} == {digest}
        until(lambda: went(members)[digest] == 1, "one copy is left")
        upstream.pause()
        (lost,) = [member for member in members if went([member])[digest]]
        answer = pulling.pull(lost, name)
        assert pulling.digest(answer) == digest
        expected = "layover; fwd=miss; stored" if ttl == "1h" else pulling.stale("refused")
        assert pulling.status(answer) == expected
