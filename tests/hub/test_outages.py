"""What was pulled once keeps pulling while its upstream fails; what was not is told why, and soon.

Every test has registries of its own, all of them behind one replica: an outage of one is no other's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.wire import Answer, Door, assert_error
from tests.hub.pulling import (
    digest,
    logged,
    make_certificate,
    pull,
    stale,
    status,
    wait_for,
    wait_until,
)
from tests.replica import Replica
from tests.upstream import Failure, Image, Upstream

TTL = 1.0
# What a loaded machine may add to any answer.
TOLERANCE = 1.5
RETURN_SECONDS = 5.0
RETRY_AFTER = 4
# More than the connections that the replica opens to one upstream.
CROWD = 80
REPOSITORY = "library/app"
TAGS = ("1", "2", "3")


def _refuse(upstream: Upstream) -> None:
    upstream.pause()


def _fall_silent(upstream: Upstream) -> None:
    upstream.dials.black_hole = {"*"}


def _hang_up(upstream: Upstream) -> None:
    upstream.dials.hang_up = {"*"}


def _reject(upstream: Upstream) -> None:
    upstream.dials.auth, upstream.dials.anonymous = "bearer", False


def _forbid_tokens(upstream: Upstream) -> None:
    upstream.dials.auth = "bearer"
    _fail(upstream, Failure(403, kind="token"))


def _hide(upstream: Upstream, repository: str) -> None:
    upstream.dials.auth, upstream.dials.private = "bearer", {repository}


def _fail(upstream: Upstream, failure: Failure) -> None:
    upstream.dials.failures = [failure]


def _answer(status: int, retry_after: str | None = None) -> Callable[[Upstream], None]:
    def turn(upstream: Upstream) -> None:
        _fail(upstream, Failure(status, retry_after=retry_after))

    return turn


@dataclass(frozen=True)
class Trouble:
    """A way to fail: how it is brought about, how a stale answer calls it, and what an uncached pull is told of it."""

    begin: Callable[[Upstream], None]
    why: str
    status: int = 503
    code: str = "UNAVAILABLE"
    says: str = ""


TROUBLES = {
    "refuses": Trouble(_refuse, "refused", says="refused the connection"),
    "limits": Trouble(_answer(429, "600"), "429", 429, "TOOMANYREQUESTS", "limits its rate"),
    "limits-briefly": Trouble(_answer(429, "2"), "429", 429, "TOOMANYREQUESTS", "limits its rate"),
    "limits-vaguely": Trouble(_answer(429), "429", 429, "TOOMANYREQUESTS", "limits its rate"),
    "errs": Trouble(_answer(503), "5xx", says="answered with status 503"),
    "is-silent": Trouble(_fall_silent, "timeout", says="did not answer in time"),
    "hangs-up": Trouble(_hang_up, "reset", says="broke the connection"),
    "rejects": Trouble(_reject, "credentials", 403, "DENIED", "denies the mirror access"),
    "forbids": Trouble(_forbid_tokens, "credentials", 403, "DENIED", "denies the mirror access"),
    # These two are brought about by the replica's configuration.
    "is-nameless": Trouble(lambda _: None, "dns", says="could not be found (DNS)"),
    "is-untrusted": Trouble(lambda _: None, "tls", says="failed the TLS handshake"),
}
RETURNING = ("refuses", "errs", "is-silent", "hangs-up")
ONE_REPOSITORY = {
    "private": lambda upstream: _hide(upstream, "library/other"),
    "forbidden": lambda upstream: _fail(upstream, Failure(403, repository="library/other", body="html")),
    "broken": lambda upstream: _fail(upstream, Failure(500, repository="library/other")),
}
EXTRAS = (
    *(f"{name}.return.test" for name in RETURNING),
    *(f"{name}.one.test" for name in ONE_REPOSITORY),
    "gets.one.test",
    "limited.return.test",
    "unsuspected.test",
)


class Registries:
    """A replica that held three tags of each of many registries, and was then restarted; the tags have expired."""

    def __init__(self, folder: Path, running: ExitStack) -> None:
        certificate = make_certificate(folder)
        hosts = (*(f"{name}.{use}.test" for name in TROUBLES for use in ("held", "cold")), *EXTRAS)
        self.upstreams = {
            host: running.enter_context(Upstream(certificate=certificate if "untrusted" in host else None))
            for host in hosts
        }
        tables: dict[str, dict[str, object]] = {host: {"url": each.url} for host, each in self.upstreams.items()}
        for host, table in tables.items():
            if "untrusted" in host:
                table["ca_file"] = str(certificate)
        settings = {"LAYOVER_FRESHNESS__TAG_TTL": f"{TTL:g}s"}
        self.images: dict[str, Image] = {}
        with Replica(folder / "store", upstreams=tables, settings=settings) as first:
            for host, upstream in self.upstreams.items():
                self._push(host, upstream)
                if ".cold." not in host:
                    self._pull_all(first, host)
            assert first.stop() == 0
        expired_at = time.monotonic() + TTL + 0.05
        for host, table in tables.items():
            if "nameless" in host:
                table["url"] = "http://nowhere.invalid"
            table.pop("ca_file", None)
        self.replica = running.enter_context(Replica(folder / "store", upstreams=tables, settings=settings))
        wait_for(expired_at)
        # Whoever waits for these errors does so while the other tests run.
        crowd = running.enter_context(ThreadPoolExecutor(len(TROUBLES) + CROWD))
        self.cold: dict[str, Future[tuple[Answer, float]]] = {}
        for name, trouble in TROUBLES.items():
            host = f"{name}.cold.test"
            trouble.begin(self.upstreams[host])
            self.cold[name] = crowd.submit(_timed, self.replica, self.image(host))
        unheard = [f"is-silent.cold.test/library/app{number}:1" for number in range(CROWD)]
        self.unheard = [crowd.submit(_timed, self.replica, image) for image in unheard]

    def image(self, host: str, tag: str = "1") -> str:
        """Return the name of an image as `pull` takes it."""
        return f"{host}/{REPOSITORY}:{tag}"

    def digest(self, host: str, tag: str = "1") -> str:
        """Return the digest that the tag had when it was pulled."""
        return self.images[self.image(host, tag)].index.digest

    def move(self, host: str, tag: str = "1", repository: str = REPOSITORY) -> str:
        """Push another image under a tag, and return its digest."""
        moved = self.upstreams[host].push_image(repository, tag, layers=[1000], seed=100, raw=True)
        return moved.index.digest

    def stale_count(self, host: str) -> float:
        """Return how many requests were counted as answered stale."""
        return self.replica.metric("layover_requests_total", upstream=host, outcome="stale")

    def _push(self, host: str, upstream: Upstream) -> None:
        for seed, tag in enumerate(TAGS):
            image = upstream.push_image(REPOSITORY, tag, layers=[1000], seed=seed, raw=True)
            self.images[self.image(host, tag)] = image
        self.images[f"{host}/library/other:1"] = upstream.push_image("library/other", "1", layers=[1000], raw=True)

    def _pull_all(self, replica: Replica, host: str) -> None:
        door = Door(replica.port)
        for name, image in self.images.items():
            if name.startswith(f"{host}/"):
                assert digest(pull(replica, name)) == image.index.digest
        image = self.images[self.image(host)]
        for one in image.manifests:
            assert door.get(f"/v2/{host}/{REPOSITORY}/manifests/{one.digest}").status == 200
        for blob in image.blobs:
            assert door.get(f"/v2/{host}/{REPOSITORY}/blobs/{blob.digest}").status == 200


@pytest.fixture(scope="module")
def registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registries]:
    with ExitStack() as running:
        yield Registries(tmp_path_factory.mktemp("outages"), running)


def _timed(replica: Replica, image: str) -> tuple[Answer, float]:
    began = time.monotonic()
    answer = pull(replica, image)
    return answer, time.monotonic() - began


def _median(replica: Replica, image: str) -> float:
    return statistics.median(_timed(replica, image)[1] for _ in range(20))


@pytest.mark.parametrize("name", TROUBLES)
class TestHeld:
    """One outage, seen by tests that do not mind who came first."""

    @pytest.fixture
    def host(self, registries: Registries, name: str) -> str:
        host = f"{name}.held.test"
        TROUBLES[name].begin(registries.upstreams[host])
        return host

    def test_pull__tags__stale_and_soon(self, registries: Registries, name: str, host: str) -> None:
        before = registries.stale_count(host)
        pulls = [(tag, method) for tag in TAGS for method in ("GET", "HEAD")]
        seconds = []
        for tag, method in pulls:
            began = time.monotonic()
            answer = pull(registries.replica, registries.image(host, tag), method)
            seconds.append(time.monotonic() - began)
            assert (digest(answer), status(answer)) == (registries.digest(host, tag), stale(TROUBLES[name].why))
            assert int(answer.headers["Age"]) >= TTL
        assert seconds[0] < 1.2 + TOLERANCE
        assert registries.stale_count(host) == before + len(pulls)

    def test_pull__again__as_quick_as_warm(self, registries: Registries, name: str, host: str) -> None:
        image = registries.images[registries.image(host)]
        pull(registries.replica, registries.image(host))
        warm = _median(registries.replica, f"{host}/{REPOSITORY}@{image.index.digest}")
        assert _median(registries.replica, registries.image(host)) < 10 * warm + 0.05

    def test_pull__all_of_an_image__complete(self, registries: Registries, name: str, host: str) -> None:
        door, image = Door(registries.replica.port), registries.images[registries.image(host)]
        assert pull(registries.replica, registries.image(host)).status == 200
        for one in image.manifests:
            assert door.get(f"/v2/{host}/{REPOSITORY}/manifests/{one.digest}").headers["Cache-Status"] == "layover; hit"
        for blob in image.blobs:
            answer = door.get(f"/v2/{host}/{REPOSITORY}/blobs/{blob.digest}")
            assert (answer.status, answer.length) == (200, blob.size)

    def test_pull__again_and_again__logged_once(self, registries: Registries, name: str, host: str) -> None:
        for _ in range(10):
            for tag in TAGS:
                pull(registries.replica, registries.image(host, tag))
        for tag in TAGS:
            lines = logged(registries.replica, registries.image(host, tag))
            assert [(line["level"], line["why"]) for line in lines] == [("warning", TROUBLES[name].why)]


def test_pull__the_upstream_is_silent_and_nobody_pulled_before__a_second_later_stale(registries: Registries) -> None:
    host = "unsuspected.test"
    _fall_silent(registries.upstreams[host])
    answer, seconds = _timed(registries.replica, registries.image(host))
    assert status(answer) == stale("timeout")
    assert seconds < 1.2 + TOLERANCE
    answer, seconds = _timed(registries.replica, registries.image(host, "2"))
    assert status(answer) == stale("timeout")
    assert seconds < 0.5


class TestReturn:
    @pytest.mark.parametrize("name", RETURNING)
    def test_pull__the_upstream_is_back__fresh(self, registries: Registries, name: str) -> None:
        host = f"{name}.return.test"
        upstream, replica = registries.upstreams[host], registries.replica
        TROUBLES[name].begin(upstream)
        for tag in TAGS:
            assert status(pull(replica, registries.image(host, tag))) == stale(TROUBLES[name].why)
        moved = {tag: registries.move(host, tag) for tag in TAGS}
        upstream.reset()
        upstream.resume()
        back_at = time.monotonic()
        wait_until(lambda: _is(replica, registries.image(host), moved["1"]), "a pull is fresh", RETURN_SECONDS)
        for tag in TAGS[1:]:
            wait_until(
                lambda tag=tag: _is(replica, registries.image(host, tag), moved[tag]),  # type: ignore[misc]
                "the others are fresh too",
                back_at + RETURN_SECONDS - time.monotonic(),
            )

    def test_pull__after_a_429__fresh_but_not_before_its_retry_after(self, registries: Registries) -> None:
        host = "limited.return.test"
        upstream, image = registries.upstreams[host], registries.image("limited.return.test")
        upstream.dials.failures = [Failure(429, retry_after=str(RETRY_AFTER))]
        upstream.counters.clear()
        limited_at = time.monotonic()
        assert status(pull(registries.replica, image)) == stale("429")
        assert upstream.counters.requests() == 1
        moved = registries.move(host)
        upstream.reset()
        while time.monotonic() < limited_at + RETRY_AFTER - 0.3:
            for tag in TAGS:
                assert status(pull(registries.replica, registries.image(host, tag))) == stale("429")
            assert upstream.counters.requests() == 1
            time.sleep(0.1)
        wait_until(lambda: _is(registries.replica, image, moved), "a pull is fresh", RETURN_SECONDS)


def _is(replica: Replica, image: str, expected: str) -> bool:
    answer = pull(replica, image)
    return digest(answer) == expected and "stale" not in status(answer)


class TestOneRepository:
    """An upstream that fails for one repository is well for all others."""

    @pytest.mark.parametrize("name", ONE_REPOSITORY)
    def test_pull__another_repository_moved__fresh(self, registries: Registries, name: str) -> None:
        host, replica = f"{name}.one.test", registries.replica
        ONE_REPOSITORY[name](registries.upstreams[host])
        assert "detail=stale-" in status(pull(replica, f"{host}/library/other:1"))
        moved = registries.move(host)
        wait_until(lambda: _is(replica, registries.image(host), moved), "the moved tag is served", RETURN_SECONDS)
        assert "detail=stale-" in status(pull(replica, f"{host}/library/other:1"))


def test_pull__only_gets_are_limited__tags_that_did_not_move_are_fresh(registries: Registries) -> None:
    """A limit of manifests lets HEADs pass, as Docker Hub's does: it keeps no other tag from being asked about."""
    host, replica = "gets.one.test", registries.replica
    registries.move(host, "1", "library/other")
    limited = Failure(429, kind="manifest", method="GET", retry_after="600")
    registries.upstreams[host].dials.failures = [limited]
    assert status(pull(replica, f"{host}/library/other:1")) == stale("429")
    answer = pull(replica, registries.image(host))
    assert (digest(answer), status(answer)) == (registries.digest(host), "layover; hit; ttl=N")


@pytest.mark.parametrize("name", TROUBLES)
class TestCold:
    def test_pull__never_held__the_right_error_in_time(self, registries: Registries, name: str) -> None:
        host, trouble = f"{name}.cold.test", TROUBLES[name]
        answer, seconds = registries.cold[name].result(30)
        assert_error(answer, trouble.status, trouble.code)
        assert seconds < 10 + TOLERANCE
        message = answer.document["errors"][0]["message"]
        assert host in message
        assert trouble.says in message
        if name == "limits":
            assert answer.headers["Retry-After"] == "600"
        elif trouble.status in {429, 503}:
            assert 1 <= int(answer.headers["Retry-After"]) <= 60


def test_pull__never_held_by_a_crowd_and_the_upstream_is_silent__everybody_is_told_in_time(
    registries: Registries,
) -> None:
    for each in registries.unheard:
        answer, seconds = each.result(30)
        assert_error(answer, 503, "UNAVAILABLE")
        assert seconds < 10 + TOLERANCE


def test_pull__a_crowd_waits_for_a_silent_upstream__another_is_as_quick_as_ever(tmp_path: Path) -> None:
    with Upstream() as silent, Upstream() as well, ThreadPoolExecutor(CROWD) as crowd:
        upstreams = {"silent.test": silent.url, "well.test": well.url}
        for tag in range(20):
            well.push_image(REPOSITORY, str(tag), ["linux/amd64"], [1000], seed=tag, raw=True)
        _fall_silent(silent)
        with Replica(tmp_path / "store", upstreams=upstreams) as replica:
            images = [f"silent.test/library/app{number}:1" for number in range(CROWD)]
            waiting = [crowd.submit(_timed, replica, image) for image in images]
            wait_until(lambda: silent.counters.requests() >= 20, "the crowd waits", 5)
            for tag in range(20):
                answer, seconds = _timed(replica, f"well.test/{REPOSITORY}:{tag}")
                assert answer.status == 200
                assert seconds < TOLERANCE
            assert not any(each.done() for each in waiting)


class TestLimit:
    def test_pull__stale_if_error_is_over__the_error(self, tmp_path: Path) -> None:
        settings = {"LAYOVER_FRESHNESS__TAG_TTL": "500ms", "LAYOVER_FRESHNESS__STALE_IF_ERROR": "1s"}
        with Upstream() as upstream, Replica(
            tmp_path / "store", upstreams={"held.test": upstream.url}, settings=settings
        ) as replica:  # fmt: skip
            image = upstream.push_image(REPOSITORY, "1", layers=[1000], raw=True)
            name = f"held.test/{REPOSITORY}:1"
            assert digest(pull(replica, name)) == image.index.digest
            held_at = time.monotonic()
            upstream.pause()
            seen = [pull(replica, name)]
            while seen[-1].status == 200:
                assert time.monotonic() < held_at + 10
                seen.append(pull(replica, name))
            assert time.monotonic() > held_at + 1.4
            assert_error(seen[-1], 503, "UNAVAILABLE")
            assert {status(answer) for answer in seen[:-1]} <= {"layover; hit; ttl=N", stale("refused")}
            assert digest(pull(replica, f"held.test/{REPOSITORY}@{image.index.digest}")) == image.index.digest
            upstream.resume()
            wait_until(lambda: pull(replica, name).status == 200, "it is served", RETURN_SECONDS)
            answer = pull(replica, name)
            assert (digest(answer), status(answer)) == (image.index.digest, "layover; hit; ttl=N")

    def test_pull__no_stale_answers_at_all__the_error_at_once(self, tmp_path: Path) -> None:
        settings = {"LAYOVER_FRESHNESS__TAG_TTL": "100ms", "LAYOVER_FRESHNESS__STALE_IF_ERROR": "0s"}
        with Upstream() as upstream, Replica(
            tmp_path / "store", upstreams={"held.test": upstream.url}, settings=settings
        ) as replica:  # fmt: skip
            upstream.push_image(REPOSITORY, "1", layers=[1000], raw=True)
            pull(replica, f"held.test/{REPOSITORY}:1")
            wait_for(time.monotonic() + 0.2)
            upstream.dials.failures = [Failure(429, retry_after="600")]
            answer = pull(replica, f"held.test/{REPOSITORY}:1")
            assert_error(answer, 429, "TOOMANYREQUESTS")
            assert answer.headers["Retry-After"] == "600"
