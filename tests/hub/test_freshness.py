"""How often the upstream is asked about a tag, and which answer a client gets of a tag that moved or is gone."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.conformance.wire import Answer, Door, exchange
from tests.hub.line import Line
from tests.hub.pulling import asked, digest, logged, make_certificate, pull, stale, status, wait_for, wait_until
from tests.replica import NO_PREFETCH, Replica
from tests.upstream import Failure, Image, Upstream

HOST = "tags.test"
CROWD = 1000
SHORT = 1.0
# Long enough for a crowd to arrive, while its one HEAD is under way and after it.
LONG = 4.0
ROUND_TRIP = 0.4
RULES = [
    {"match": f"{HOST}/rules/both:*", "ttl": "2h"},
    {"match": f"{HOST}/rules/*:latest", "ttl": "1h"},
    {"match": f"{HOST}/rules/both:latest", "ttl": "3h"},
    {"match": "*:for-ever", "ttl": "forever"},
    {"match": f"{HOST}/crowd/*", "ttl": f"{LONG:g}s"},
    {"match": f"{HOST}/warm/*", "ttl": "1h"},
]
SETTINGS = {
    **NO_PREFETCH,
    "LAYOVER_FRESHNESS__TAG_TTL": f"{SHORT:g}s",
    "LAYOVER_FRESHNESS__RULES": json.dumps(RULES),
    "LAYOVER_LOG__LEVEL": "warning",
}


@pytest.fixture(scope="module")
def replica(registry: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    store = tmp_path_factory.mktemp("freshness") / "store"
    settings = {**SETTINGS, "LAYOVER_FRESHNESS__REVALIDATE_TIMEOUT": "4s"}
    with Replica(store, upstreams={HOST: registry.url}, settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def crowded(registry: Upstream, replica: Replica) -> float:
    """Pull what crowds will pull, and return the moment by which it has expired."""
    for repository in ("crowd/same", "crowd/moved"):
        _warm(registry, replica, repository)
    return time.monotonic() + LONG + 0.05


@pytest.fixture
def upstream(registry: Upstream, crowded: float) -> Iterator[Upstream]:
    registry.counters.clear()
    yield registry
    registry.reset()


def _push(upstream: Upstream, repository: str, tag: str = "1", seed: int = 0) -> Image:
    return upstream.push_image(repository, tag, layers=[1000], seed=seed, raw=True)


def _warm(upstream: Upstream, replica: Replica, repository: str, tag: str = "1", seed: int = 0) -> Image:
    """Push an image, pull its manifests, and forget what that cost."""
    image = _push(upstream, repository, tag, seed)
    assert digest(pull(replica, f"{HOST}/{repository}:{tag}")) == image.index.digest
    for manifest in image.manifests:
        assert digest(pull(replica, f"{HOST}/{repository}@{manifest.digest}")) == manifest.digest
    upstream.counters.clear()
    return image


def _expire(seconds: float = SHORT) -> None:
    """Wait until what was pulled a moment ago has expired."""
    wait_for(time.monotonic() + seconds + 0.05)


def _seconds_left(answer: Answer) -> int:
    match = re.fullmatch(r"layover; hit; ttl=(\d+)", answer.headers["Cache-Status"])
    assert match is not None, answer.headers["Cache-Status"]
    return int(match[1])


async def _crowd(replica: Replica, image: str) -> set[tuple[int, str]]:
    """Pull a tag a thousand times at once; return every status and digest that came."""
    target = f"{replica.url}/v2/{image.replace(':', '/manifests/')}"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one() -> tuple[int, str]:
            async with session.get(target) as answer:
                await answer.read()
                return answer.status, answer.headers.get("Docker-Content-Digest", "")

        return set(await asyncio.gather(*(one() for _ in range(CROWD))))


class TestRules:
    @pytest.mark.parametrize(
        ("repository", "tag", "ttl"),
        [
            ("rules/both", "latest", 7200),
            ("rules/both", "1", 7200),
            ("rules/latest", "latest", 3600),
            ("rules/deep/er", "latest", 3600),
            ("rules/none", "for-ever", 2**31),
            ("rules/none", "1", SHORT),
        ],
    )
    def test_pull__matched__the_first_rules_ttl(
        self, upstream: Upstream, replica: Replica, repository: str, tag: str, ttl: float
    ) -> None:
        _push(upstream, repository, tag)
        pull(replica, f"{HOST}/{repository}:{tag}")
        assert ttl - 60 < _seconds_left(pull(replica, f"{HOST}/{repository}:{tag}")) <= ttl

    def test_pull__for_ever__never_asked_again(self, upstream: Upstream, replica: Replica) -> None:
        image = _warm(upstream, replica, "library/immutable", "for-ever")
        _warm(upstream, replica, "library/mutable")
        _push(upstream, "library/immutable", "for-ever", seed=1)
        _expire()
        assert digest(pull(replica, f"{HOST}/library/immutable:for-ever")) == image.index.digest
        pull(replica, f"{HOST}/library/mutable:1")
        assert asked(upstream, "library/immutable") == []
        assert asked(upstream, "library/mutable") == [("HEAD", "1")]


class TestCost:
    def test_pull__a_thousand_times_within_the_ttl__the_upstream_is_not_asked(
        self, upstream: Upstream, replica: Replica
    ) -> None:
        image = _warm(upstream, replica, "warm/image")
        connection = Door(replica.port).connect()
        for _ in range(CROWD):
            answer = exchange(connection, "GET", f"/v2/{HOST}/warm/image/manifests/1")
            assert digest(answer) == image.index.digest
        connection.close()
        assert upstream.counters.requests() == 0

    async def test_pull__a_thousand_at_once_of_an_expired_tag__one_head(
        self, upstream: Upstream, replica: Replica, crowded: float
    ) -> None:
        image = _push(upstream, "crowd/same")
        wait_for(crowded)
        upstream.dials.latency = {"manifest": 1.5}
        assert await _crowd(replica, f"{HOST}/crowd/same:1") == {(200, image.index.digest)}
        assert asked(upstream, "crowd/same") == [("HEAD", "1")]

    async def test_pull__a_thousand_at_once_of_a_moved_tag__one_head_and_one_get(
        self, upstream: Upstream, replica: Replica, crowded: float
    ) -> None:
        moved = _push(upstream, "crowd/moved", seed=1)
        wait_for(crowded)
        upstream.dials.latency = {"manifest": 0.8}
        assert await _crowd(replica, f"{HOST}/crowd/moved:1") == {(200, moved.index.digest)}
        assert asked(upstream, "crowd/moved") == [("HEAD", "1"), ("GET", moved.index.digest)]
        for manifest in moved.manifests * 2:
            assert digest(pull(replica, f"{HOST}/crowd/moved@{manifest.digest}")) == manifest.digest
        new = [("GET", manifest.digest) for manifest in moved.manifests]
        assert asked(upstream, "crowd/moved")[2:] == new

    def test_pull__moved_to_what_is_held__the_head_alone(self, upstream: Upstream, replica: Replica) -> None:
        _warm(upstream, replica, "library/moves")
        other = _warm(upstream, replica, "library/moves", "2", seed=1)
        _push(upstream, "library/moves", "1", seed=1)
        _expire()
        answer = pull(replica, f"{HOST}/library/moves:1")
        assert (digest(answer), status(answer)) == (other.index.digest, "layover; hit; ttl=N")
        assert asked(upstream, "library/moves") == [("HEAD", "1")]

    def test_head__expired__the_upstream_is_asked_as_for_a_get(self, upstream: Upstream, replica: Replica) -> None:
        _warm(upstream, replica, "library/headed")
        moved = _push(upstream, "library/headed", seed=1)
        _expire()
        assert digest(pull(replica, f"{HOST}/library/headed:1", "HEAD")) == moved.index.digest
        assert asked(upstream, "library/headed") == [("HEAD", "1"), ("GET", moved.index.digest)]

    def test_pull__the_replica_was_restarted__the_ttl_goes_on(self, upstream: Upstream, tmp_path: Path) -> None:
        upstreams = {HOST: upstream.url}
        with Replica(tmp_path / "store", upstreams=upstreams, settings=SETTINGS) as first:
            _warm(upstream, first, "warm/restarted")
            _warm(upstream, first, "library/restarted")
            assert first.stop() == 0
        _expire()
        with Replica(tmp_path / "store", upstreams=upstreams, settings=SETTINGS) as second:
            assert 3500 < _seconds_left(pull(second, f"{HOST}/warm/restarted:1")) <= 3600
            pull(second, f"{HOST}/library/restarted:1")
        assert asked(upstream, "warm/restarted") == []
        assert asked(upstream, "library/restarted") == [("HEAD", "1")]


class TestFarAway:
    """A registry that is well, and every answer of which takes 400 ms."""

    def test_pull__moved__never_stale(self, tmp_path: Path) -> None:
        settings = {"LAYOVER_FRESHNESS__TAG_TTL": "500ms"}
        with Upstream() as far:
            far.dials.auth = "bearer"
            with Replica(tmp_path / "store", upstreams={HOST: far.url}, settings=settings) as first:
                _warm(far, first, "library/far")
                assert first.stop() == 0
            far.dials.latency = {"*": ROUND_TRIP}
            with Replica(tmp_path / "store", upstreams={HOST: far.url}, settings=settings) as second:
                for seed in (1, 2):  # without a token first, then with one
                    moved = _push(far, "library/far", seed=seed)
                    _expire(0.5)
                    answer = pull(second, f"{HOST}/library/far:1")
                    assert (digest(answer), status(answer)) == (moved.index.digest, "layover; fwd=miss; stored")

    def test_pull__moved_behind_tls__never_stale(self, tmp_path: Path) -> None:
        certificate = make_certificate(tmp_path)
        settings = {"LAYOVER_FRESHNESS__TAG_TTL": "500ms"}
        with Upstream(certificate=certificate) as far, Line(far.url, ROUND_TRIP) as line:
            table = {"url": line.url, "ca_file": str(certificate)}
            with Replica(tmp_path / "store", upstreams={HOST: table}, settings=settings) as first:
                _warm(far, first, "library/far")
                assert first.stop() == 0
            moved = _push(far, "library/far", seed=1)
            _expire(0.5)
            with Replica(tmp_path / "store", upstreams={HOST: table}, settings=settings) as second:
                answer = pull(second, f"{HOST}/library/far:1")
                assert (digest(answer), status(answer)) == (moved.index.digest, "layover; fwd=miss; stored")


@pytest.fixture(scope="class")
def serving(registry: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """Run a replica that serves what the upstream deleted."""
    store = tmp_path_factory.mktemp("serving") / "store"
    settings = {**SETTINGS, "LAYOVER_FRESHNESS__ON_DELETED": "serve"}
    with Replica(store, upstreams={HOST: registry.url}, settings=settings) as running:
        yield running


class TestDeleted:
    def test_pull__refuse__one_get_confirms_the_404(self, upstream: Upstream, replica: Replica) -> None:
        image = _warm(upstream, replica, "library/deleted")
        upstream.remove("library/deleted", "1")
        _expire()
        answer = pull(replica, f"{HOST}/library/deleted:1")
        assert (answer.status, answer.document["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")
        assert asked(upstream, "library/deleted") == [("HEAD", "1"), ("GET", "1")]
        assert digest(pull(replica, f"{HOST}/library/deleted@{image.index.digest}")) == image.index.digest

    def test_pull__the_404_is_not_confirmed__fresh(self, upstream: Upstream, replica: Replica) -> None:
        image = _warm(upstream, replica, "library/hidden")
        upstream.dials.failures = [Failure(404, kind="manifest", method="HEAD")]
        _expire()
        answer = pull(replica, f"{HOST}/library/hidden:1")
        assert (digest(answer), asked(upstream, "library/hidden")) == (
            image.index.digest,
            [("HEAD", "1"), ("GET", "1")],
        )

    def test_pull__the_get_that_should_confirm_fails__stale(self, upstream: Upstream, replica: Replica) -> None:
        image = _warm(upstream, replica, "library/doubtful")
        upstream.dials.failures = [Failure(404, method="HEAD"), Failure(503, method="GET")]
        _expire()
        answer = pull(replica, f"{HOST}/library/doubtful:1")
        assert (digest(answer), status(answer)) == (image.index.digest, stale("5xx"))
        upstream.reset()
        wait_until(lambda: "stale" not in status(pull(replica, f"{HOST}/library/doubtful:1")), "it is fresh again", 5)

    def test_pull__serve__the_held_answer_marked(self, upstream: Upstream, serving: Replica) -> None:
        image = _warm(upstream, serving, "library/kept")
        upstream.remove("library/kept", "1")
        _expire()
        answer = pull(serving, f"{HOST}/library/kept:1")
        assert (digest(answer), status(answer)) == (image.index.digest, stale("deleted"))
        assert asked(upstream, "library/kept") == [("HEAD", "1"), ("GET", "1")]

    def test_pull__serve_and_pulled_often__the_upstream_is_asked_once_within_negative_ttl(
        self, upstream: Upstream, serving: Replica
    ) -> None:
        _warm(upstream, serving, "library/popular")
        upstream.remove("library/popular", "1")
        _expire()
        began = time.monotonic()
        for _ in range(20):
            assert status(pull(serving, f"{HOST}/library/popular:1")) == stale("deleted")
        allowed = 1 + int((time.monotonic() - began) / 5)
        assert asked(upstream, "library/popular").count(("GET", "1")) <= allowed

    def test_pull__serve_and_pulled_often__logged_once(self, upstream: Upstream, serving: Replica) -> None:
        _warm(upstream, serving, "library/noted")
        upstream.remove("library/noted", "1")
        _expire()
        for _ in range(5):
            assert status(pull(serving, f"{HOST}/library/noted:1")) == stale("deleted")
        assert [line["why"] for line in logged(serving, f"{HOST}/library/noted:1")] == ["deleted"]

    def test_pull__serve_and_pushed_again__fresh(self, upstream: Upstream, serving: Replica) -> None:
        _warm(upstream, serving, "library/returned")
        upstream.remove("library/returned", "1")
        _expire()
        assert status(pull(serving, f"{HOST}/library/returned:1")) == stale("deleted")
        new = _push(upstream, "library/returned", seed=1)
        image = f"{HOST}/library/returned:1"
        wait_until(lambda: digest(pull(serving, image)) == new.index.digest, "the new image is served", 6)

    def test_pull__serve_and_others_of_the_upstream__fresh(self, upstream: Upstream, serving: Replica) -> None:
        """An upstream that says a tag is gone is well: it says so of the tag that met an outage, and ends it."""
        _warm(upstream, serving, "library/gone")
        _warm(upstream, serving, "library/living")
        moved = _push(upstream, "library/living", seed=1)
        upstream.remove("library/gone", "1")
        _expire()
        upstream.dials.failures = [Failure(503)]
        assert status(pull(serving, f"{HOST}/library/gone:1")) == stale("5xx")
        upstream.reset()
        image = f"{HOST}/library/living:1"
        wait_until(lambda: digest(pull(serving, image)) == moved.index.digest, "the new image is served", 5)
