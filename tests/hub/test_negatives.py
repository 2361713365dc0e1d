"""A 404 and a denial are remembered for a moment, by tag, and only those."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conformance.wire import Door, assert_error
from tests.hub.pulling import asked, digest, pull, wait_for, wait_until
from tests.replica import Replica
from tests.upstream import Failure, Upstream

HOST = "negative.test"
TTL = 2.0
SETTINGS = {"LAYOVER_FRESHNESS__NEGATIVE_TTL": f"{TTL:g}s", "LAYOVER_FRESHNESS__TAG_TTL": "500ms"}
NOWHERE = f"sha256:{'0' * 64}"


@pytest.fixture(scope="module")
def replica(registry: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    store = tmp_path_factory.mktemp("negatives") / "store"
    with Replica(store, upstreams={HOST: registry.url}, settings=SETTINGS) as running:
        yield running


@pytest.fixture
def upstream(registry: Upstream) -> Iterator[Upstream]:
    registry.counters.clear()
    yield registry
    registry.reset()


@pytest.fixture
def repository(upstream: Upstream, request: pytest.FixtureRequest) -> str:
    """Return the name of a repository that exists, and has nothing but the tag `there`."""
    name = f"library/app{zlib.crc32(request.node.nodeid.encode())}"
    upstream.push_image(name, "there", layers=[1000], raw=True)
    return name


def _counted(replica: Replica, outcome: str) -> float:
    return replica.metric("layover_requests_total", upstream=HOST, outcome=outcome)


def _pull_what_is_missing(upstream: Upstream, replica: Replica, repository: str) -> None:
    """Check that fifty pulls cost one GET, or one in each negative_ttl that went by, and how they are counted."""
    before = _counted(replica, "negative")
    began = time.monotonic()
    for _ in range(25):
        assert_error(pull(replica, f"{HOST}/{repository}:missing"), 404, "MANIFEST_UNKNOWN")
        assert pull(replica, f"{HOST}/{repository}:missing", "HEAD").status == 404
    gets = asked(upstream, repository)
    assert set(gets) == {("GET", "missing")}
    assert len(gets) <= 1 + int((time.monotonic() - began) / TTL)
    wait_until(lambda: _counted(replica, "negative") == before + 50 - len(gets), "all others count as negative", 10)


def test_pull__missing__one_get_within_negative_ttl(upstream: Upstream, replica: Replica, repository: str) -> None:
    _pull_what_is_missing(upstream, replica, repository)


def test_pull__missing_and_several_doors__one_get_within_negative_ttl(
    upstream: Upstream, repository: str, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "LAYOVER_SERVER__WORKERS": "2"}
    with Replica(tmp_path / "store", upstreams={HOST: upstream.url}, settings=settings) as replica:
        _pull_what_is_missing(upstream, replica, repository)


def test_pull__missing_and_many_at_once__one_get(upstream: Upstream, replica: Replica, repository: str) -> None:
    upstream.dials.latency = {"manifest": 0.3}
    with ThreadPoolExecutor(20) as crowd:
        answers = list(crowd.map(lambda _: pull(replica, f"{HOST}/{repository}:missing"), range(20)))
    assert {answer.status for answer in answers} == {404}
    assert asked(upstream, repository) == [("GET", "missing")]


def test_pull__negative_ttl_is_over__asked_again(upstream: Upstream, replica: Replica, repository: str) -> None:
    image = f"{HOST}/{repository}:late"
    began = time.monotonic()
    assert pull(replica, image).status == 404
    pushed = upstream.push_image(repository, "late", layers=[1000], seed=1, raw=True)
    wait_until(lambda: pull(replica, image).status == 200, "it is found", TTL + 2)
    assert time.monotonic() > began + TTL
    assert digest(pull(replica, image)) == pushed.index.digest
    assert asked(upstream, repository)[:2] == [("GET", "late")] * 2


def test_pull__another_tag_or_repository__asked(upstream: Upstream, replica: Replica, repository: str) -> None:
    assert pull(replica, f"{HOST}/{repository}:missing").status == 404
    assert pull(replica, f"{HOST}/{repository}:there").status == 200
    assert pull(replica, f"{HOST}/{repository}:gone").status == 404
    assert asked(upstream, repository) == [("GET", "missing"), ("GET", "there"), ("GET", "gone")]


def test_pull_by_digest__missing__asked_each_time(upstream: Upstream, replica: Replica, repository: str) -> None:
    before = _counted(replica, "negative")
    for _ in range(3):
        assert_error(pull(replica, f"{HOST}/{repository}@{NOWHERE}"), 404, "MANIFEST_UNKNOWN")
        assert_error(Door(replica.port).get(f"/v2/{HOST}/{repository}/blobs/{NOWHERE}"), 404, "BLOB_UNKNOWN")
    assert asked(upstream, repository) == [("GET", NOWHERE)] * 3
    assert upstream.counters.requests(kind="blob", repository=repository) >= 3
    assert _counted(replica, "negative") == before


def test_pull_by_digest__pushed_a_moment_later__found(upstream: Upstream, replica: Replica, repository: str) -> None:
    upstream.push_image(repository, "x", layers=[1000], seed=2, raw=True)
    wanted = upstream.push_image(repository, "x", layers=[1000], seed=3, raw=True).index
    upstream.dials.failures = [Failure(404, reference=wanted.digest)]
    assert pull(replica, f"{HOST}/{repository}@{wanted.digest}").status == 404
    upstream.reset()
    assert digest(pull(replica, f"{HOST}/{repository}@{wanted.digest}")) == wanted.digest


def test_pull__deleted__remembered(upstream: Upstream, replica: Replica, repository: str) -> None:
    image = f"{HOST}/{repository}:there"
    pull(replica, image)
    wait_for(time.monotonic() + 0.6)
    upstream.remove(repository, "there")
    upstream.counters.clear()
    for _ in range(10):
        assert pull(replica, image).status == 404
    assert asked(upstream, repository) == [("HEAD", "there"), ("GET", "there")]


class TestDenied:
    def test_pull__of_one_tag__asked_once(self, upstream: Upstream, replica: Replica, repository: str) -> None:
        upstream.dials.auth, upstream.dials.anonymous = "bearer", False
        for _ in range(10):
            assert_error(pull(replica, f"{HOST}/{repository}:there"), 403, "DENIED")
        assert upstream.counters.requests(kind="token") == 1

    def test_pull__of_many_tags__the_repository_is_asked_for_once(
        self, upstream: Upstream, replica: Replica, repository: str
    ) -> None:
        upstream.dials.auth, upstream.dials.anonymous = "bearer", False
        for number in range(10):
            assert_error(pull(replica, f"{HOST}/{repository}:{number}"), 403, "DENIED")
        assert upstream.counters.requests(kind="token") == 1

    def test_pull__let_in_later__found(self, upstream: Upstream, replica: Replica, repository: str) -> None:
        upstream.dials.auth, upstream.dials.anonymous = "bearer", False
        image = f"{HOST}/{repository}:there"
        assert pull(replica, image).status == 403
        upstream.reset()
        wait_until(lambda: pull(replica, image).status == 200, "it is let in", TTL + 10)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_pull__an_outage__not_remembered(upstream: Upstream, replica: Replica, repository: str, status: int) -> None:
    upstream.dials.failures = [Failure(status, kind="manifest", retry_after="1")]
    before = _counted(replica, "negative")
    answer = pull(replica, f"{HOST}/{repository}:there")
    assert answer.status == (429 if status == 429 else 503)
    upstream.reset()
    wait_until(lambda: pull(replica, f"{HOST}/{repository}:there").status == 200, "it is served", 5)
    assert _counted(replica, "negative") == before
