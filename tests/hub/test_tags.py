"""What a pull by tag costs the upstream, and what is answered when the upstream does not."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.chaos.reader import Reader
from tests.chaos.scene import Scene, eventually
from tests.replica import Replica
from tests.upstream import Failure, Image, Upstream

_CLIENTS = 50
_TTL = 1.0
_PATIENCE = 1.0
_TESTS = 15


@pytest.fixture(scope="module")
def registries() -> Iterator[dict[str, Upstream]]:
    """Run a registry for each test: what is learnt of one is no other's."""
    with ExitStack() as running:
        yield {f"r{number}.test": running.enter_context(Upstream()) for number in range(_TESTS)}


@pytest.fixture(scope="module")
def impatient(registries: dict[str, Upstream], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """Run a replica that believes a tag for a second."""
    settings = {
        "LAYOVER_FRESHNESS__TAG_TTL": f"{_TTL:g}s",
        "LAYOVER_FRESHNESS__REVALIDATE_TIMEOUT": f"{_PATIENCE:g}s",
    }
    upstreams = {host: upstream.url for host, upstream in registries.items()}
    with Replica(tmp_path_factory.mktemp("impatient") / "store", upstreams=upstreams, settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def expired(registries: dict[str, Upstream], impatient: Replica) -> list[Scene]:
    """Return scenes whose tag `1` was pulled and has expired since; each test takes one."""
    scenes = [Scene(upstream, impatient, "library/held", host) for host, upstream in registries.items()]
    for each in scenes:
        image = each.push_image(1000)
        assert each.manifest(image.tag).digest == image.index.digest
    pulled_at = time.monotonic()
    eventually(lambda: time.monotonic() > pulled_at + _TTL + 0.05, "they expire")
    return scenes


@pytest.fixture
def scene(expired: list[Scene]) -> Scene:
    scene = expired.pop()
    scene.upstream.counters.clear()
    return scene


@pytest.fixture
def held(scene: Scene) -> Image:
    """Return the image whose tag has expired."""
    return scene.push_image(1000)


def _let_expire(scene: Scene) -> None:
    """Wait until a tag that was just pulled is no longer believed."""
    pulled_at = time.monotonic()
    eventually(lambda: time.monotonic() > pulled_at + _TTL + 0.05, "it expires")
    scene.upstream.counters.clear()


def _pull(scene: Scene, reference: str, count: int) -> list[Reader]:
    target = f"{scene.base}/manifests/{reference}"
    return [reader.wait() for reader in [Reader(scene.replica.url, target) for _ in range(count)]]


def _asked(scene: Scene) -> list[tuple[str, str]]:
    """Return method and reference of each manifest request that reached the upstream."""
    received = [each for each in scene.upstream.counters.headers if f"{scene.repository}/manifests/" in each.path]
    return [(each.method, each.path.rpartition("/")[2]) for each in received]


def _status(reader: Reader) -> str:
    return re.sub(r"ttl=-\d+", "ttl=-N", reader.headers["Cache-Status"])


def test_pull__cold__one_get_for_all(scene: Scene) -> None:
    image = scene.push_image(1000, tag="cold")
    readers = _pull(scene, "cold", _CLIENTS)
    assert {reader.digest for reader in readers} == {image.index.digest}
    assert _asked(scene) == [("GET", "cold")]


def test_pull__fresh__the_upstream_is_not_asked(scene: Scene) -> None:
    settings = {"LAYOVER_FRESHNESS__TAG_TTL": "1h"}
    image = scene.push_image(1000)
    store = scene.replica.store.with_name("patient")
    with Replica(store, upstreams={scene.host: scene.upstream.url}, settings=settings) as patient:
        patiently = Scene(scene.upstream, patient, scene.repository, scene.host)
        patiently.manifest(image.tag)
        before = scene.upstream.counters.requests()
        for reader in _pull(patiently, image.tag, _CLIENTS):
            assert reader.digest == image.index.digest
            ttl = re.fullmatch(r"layover; hit; ttl=(\d+)", reader.headers["Cache-Status"])
            assert ttl is not None, reader.headers["Cache-Status"]
            assert 3500 < int(ttl[1]) <= 3600
        assert scene.upstream.counters.requests() == before


def test_pull_by_digest__held__the_upstream_is_not_asked(scene: Scene, held: Image) -> None:
    readers = _pull(scene, held.index.digest, _CLIENTS)
    assert {reader.digest for reader in readers} == {held.index.digest}
    assert _asked(scene) == []


def test_pull__expired__one_head_for_all(scene: Scene, held: Image) -> None:
    scene.upstream.dials.latency = {"manifest": 0.2}
    readers = _pull(scene, held.tag, _CLIENTS)
    assert {reader.digest for reader in readers} == {held.index.digest}
    assert {reader.status for reader in readers} == {200}
    assert _asked(scene) == [("HEAD", held.tag)]


def test_pull__moved__one_head_and_one_get_by_digest(scene: Scene, held: Image) -> None:
    moved = scene.upstream.push_image(scene.repository, held.tag, ["linux/amd64"], [1000], scene.seed + 1)
    scene.upstream.dials.latency = {"manifest": 0.2}
    readers = _pull(scene, held.tag, _CLIENTS)
    assert {reader.digest for reader in readers} == {moved.index.digest}
    assert _asked(scene) == [("HEAD", held.tag), ("GET", moved.index.digest)]
    assert scene.manifest(held.index.digest).digest == held.index.digest


def test_pull__moved_and_back__the_head_alone(scene: Scene, held: Image) -> None:
    scene.upstream.push_image(scene.repository, held.tag, ["linux/amd64"], [1000], scene.seed + 1)
    scene.manifest(held.tag)
    _let_expire(scene)
    scene.push_image(1000)
    assert scene.manifest(held.tag).digest == held.index.digest
    assert _asked(scene) == [("HEAD", held.tag)]


def test_pull__the_head_names_no_digest__one_get_for_all(scene: Scene, held: Image) -> None:
    scene.upstream.dials.manifest_head_digest = False
    scene.upstream.dials.latency = {"manifest": 0.2}
    readers = _pull(scene, held.tag, _CLIENTS)
    assert {reader.digest for reader in readers} == {held.index.digest}
    assert _asked(scene) == [("HEAD", held.tag), ("GET", held.tag)]


def test_pull__the_upstream_is_slow__stale_now_and_its_answer_counts_later(scene: Scene, held: Image) -> None:
    moved = scene.upstream.push_image(scene.repository, held.tag, ["linux/amd64"], [1000], scene.seed + 1)
    scene.upstream.dials.latency = {"manifest": 1.3 * _PATIENCE}
    (reader,) = _pull(scene, held.tag, 1)
    assert reader.digest == held.index.digest
    assert _status(reader) == "layover; hit; ttl=-N; detail=stale-timeout"
    eventually(lambda: len(_asked(scene)) == 2, "the head went on, and the new manifest was fetched")
    scene.upstream.dials.latency = {}
    eventually(lambda: scene.manifest(held.tag).digest == moved.index.digest, "the new manifest is served")
    assert ("GET", held.tag) not in _asked(scene)


def test_pull__deleted_at_the_upstream__one_get_confirms_it(scene: Scene, held: Image) -> None:
    scene.upstream.remove(scene.repository, held.tag)
    scene.upstream.dials.latency = {"manifest": 0.2}
    readers = _pull(scene, held.tag, _CLIENTS)
    assert {reader.status for reader in readers} == {404}
    assert all(b"MANIFEST_UNKNOWN" in reader.beginning for reader in readers)
    assert _asked(scene) == [("HEAD", held.tag), ("GET", held.tag)]
    assert scene.manifest(held.index.digest).digest == held.index.digest


def test_pull__the_head_says_404_and_the_get_does_not__it_is_served(scene: Scene, held: Image) -> None:
    scene.upstream.dials.manifest_head_status = 404
    (reader,) = _pull(scene, held.tag, 1)
    assert reader.digest == held.index.digest
    assert _asked(scene) == [("HEAD", held.tag), ("GET", held.tag)]


def test_pull__the_head_says_404_and_the_get_fails__stale(scene: Scene, held: Image) -> None:
    scene.upstream.dials.manifest_head_status = 404
    scene.upstream.dials.failures = [Failure(status=503, kind="manifest", method="GET")]
    (reader,) = _pull(scene, held.tag, 1)
    assert reader.digest == held.index.digest
    assert _status(reader) == "layover; hit; ttl=-N; detail=stale-5xx"


def test_pull__moved_and_the_new_manifest_cannot_be_had__stale(scene: Scene, held: Image) -> None:
    scene.upstream.push_image(scene.repository, held.tag, ["linux/amd64"], [1000], scene.seed + 1)
    scene.upstream.dials.failures = [Failure(status=503, kind="manifest", method="GET")]
    (reader,) = _pull(scene, held.tag, 1)
    assert reader.digest == held.index.digest
    assert _status(reader) == "layover; hit; ttl=-N; detail=stale-5xx"


def test_pull__moved_and_the_new_manifest_is_corrupt__stale(scene: Scene, held: Image) -> None:
    scene.upstream.push_image(scene.repository, held.tag, ["linux/amd64"], [1000], scene.seed + 1)
    scene.upstream.dials.manifest_corrupt = True
    (reader,) = _pull(scene, held.tag, 1)
    assert reader.digest == held.index.digest
    assert _status(reader) == "layover; hit; ttl=-N; detail=stale-5xx"


def test_pull__never_seen_and_the_upstream_is_gone(scene: Scene) -> None:
    image = scene.push_image(1000, tag="cold")
    scene.upstream.pause()
    (reader,) = _pull(scene, image.tag, 1)
    assert reader.status == 503
    assert int(reader.headers["Retry-After"]) >= 1
    assert scene.host.encode() in reader.beginning
    assert b"refused" in reader.beginning
    scene.upstream.resume()
    eventually(lambda: scene.manifest(image.tag).digest == image.index.digest, "it is served", 5)
