"""Large blobs in ranges over several connections, as clients and upstreams see it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.chaos.reader import assert_nothing_wrong
from tests.chaos.scene import MIB, Scene, eventually
from tests.replica import Replica
from tests.upstream import Failure, Image, Upstream

_SIZE = 40 * MIB
_RATE = 5 * MIB
_MOST_MORE = 4 * MIB
# How many times quicker the rest may come: beside quicker ones a connection that stays slow is replaced.
_SOON = 3


@pytest.fixture
def line(scene: Scene) -> Scene:
    """Return a scene whose registry redirects to storage that gives each connection little."""
    scene.upstream.dials.redirect = True
    scene.upstream.dials.blob_rate = _RATE
    return scene


def _layer(scene: Scene, size: int = _SIZE) -> str:
    """Push a blob whose size the replica knows, and return its digest."""
    image: Image = scene.push_image(size)
    assert scene.manifest(image.manifests[0].digest).is_complete
    scene.upstream.counters.clear()
    return image.layers[0].digest


def _ranges(scene: Scene) -> list[str]:
    """Return the ranges that blobs were asked for, an empty one for all of it."""
    wanted = (each for each in scene.upstream.counters.headers if each.method == "GET")
    return [
        each.headers.get("Range", "") for each in wanted if "sha256:" in each.path and "/manifests/" not in each.path
    ]


def _retries(scene: Scene, reason: str) -> float:
    return scene.replica.metric("layover_upstream_retries_total", upstream="docker.io", reason=reason)


@pytest.mark.parametrize("described", [True, False], ids=["described", "of unknown size"])
def test_pull__large__comes_in_closed_ranges_from_one_signed_url(line: Scene, described: bool) -> None:
    digest = _layer(line) if described else line.push(_SIZE)
    line.upstream.dials.blob_rate = MIB
    reader = line.read(digest)
    eventually(lambda: line.upstream.counters.requests("GET", "cdn") > 3, "there are several at a time")
    assert line.upstream.counters.sent(digest) < _SIZE // 2
    line.upstream.dials.blob_rate = _SOON * MIB
    assert reader.wait().digest == digest
    line.assert_fetched_once(digest, _SIZE)
    assert all(each and not each.endswith("-") for each in _ranges(line))
    assert line.upstream.counters.requests("GET", "blob") == 1
    assert line.upstream.counters.requests("GET", "cdn") > 3
    assert line.upstream.counters.authorizations("cdn") == []


def test_pull__small__is_one_request_without_a_range(scene: Scene) -> None:
    digest = _layer(scene, 6 * MIB)
    assert scene.get(digest).digest == digest
    assert _ranges(scene) == [""]


def test_read_range__far_ahead__is_served_before_what_lies_between(line: Scene) -> None:
    digest = _layer(line)
    line.upstream.dials.blob_rate = MIB // 4
    whole = line.read(digest).wait_for(1)
    start = _SIZE - 2 * MIB
    part = line.get(digest, {"Range": f"bytes={start}-{start + 65_535}"})
    assert part.status == 206
    assert part.is_complete
    assert part.beginning == line.upstream.content(digest)[start : start + 65_536]
    assert line.upstream.counters.sent(digest) < _SIZE // 4
    assert not whole.has_ended
    line.upstream.dials.blob_rate = _SOON * MIB // 4
    assert whole.wait().digest == digest
    line.assert_fetched_once(digest, _SIZE)


@pytest.mark.parametrize("dials", [{"cdn_seconds": 0.5}, {"cdn_uses": 3}, {"cdn_uses": 1}], ids=str)
def test_pull__the_signed_url_expires__it_is_renewed(line: Scene, dials: dict[str, object]) -> None:
    digest = _layer(line)
    line.upstream.dials.blob_rate = 2 * MIB
    for name, value in dials.items():
        setattr(line.upstream.dials, name, value)
    assert line.get(digest).digest == digest
    line.assert_fetched_once(digest, _SIZE)
    asked = line.upstream.counters.requests("GET", "blob")
    assert 1 < asked <= line.upstream.counters.requests("GET", "cdn")


@pytest.mark.parametrize("ranges", ["ignored", "wrong", "shifted", "refused"])
def test_pull__ranges_are_of_no_use__it_comes_in_one_stream(
    scene: Scene, ranges: Literal["ignored", "wrong", "shifted", "refused"]
) -> None:
    digest = _layer(scene)
    scene.upstream.dials.blob_ranges = ranges
    reader = scene.get(digest)
    assert reader.is_complete, reader
    assert reader.digest == digest
    assert _ranges(scene)[1:] == ([] if ranges == "ignored" else [""])
    if ranges in {"ignored", "refused"}:
        scene.assert_fetched_once(digest, _SIZE)


@pytest.mark.parametrize("ranges", ["ignored", "refused"])
def test_pull__ranges_cease_to_be_given__nobody_gets_a_wrong_byte(
    line: Scene, ranges: Literal["ignored", "refused"]
) -> None:
    digest = _layer(line)
    mismatches = line.replica.metric("layover_digest_mismatches_total")
    reader = line.read(digest).wait_for(MIB)
    line.upstream.dials.blob_ranges = ranges
    line.upstream.dials.blob_rate = None
    reader.wait()
    assert reader.digest == digest or (not reader.is_complete and ranges != "ignored"), reader
    assert line.replica.metric("layover_digest_mismatches_total") == mismatches
    line.upstream.dials.blob_ranges = "served"
    healed = line.get(digest)
    assert healed.digest == digest, healed
    assert_nothing_wrong(line.replica.store)


@pytest.mark.parametrize("ranges", ["served", "ignored"])
def test_pull__a_lone_connection_stalls__it_is_replaced(scene: Scene, ranges: Literal["served", "ignored"]) -> None:
    digest = _layer(scene, 6 * MIB)
    scene.upstream.dials.blob_ranges = ranges
    scene.upstream.dials.blob_stall, scene.upstream.dials.blob_stall_times = MIB, 1
    before, began = _retries(scene, "timeout"), time.monotonic()
    assert scene.get(digest).digest == digest
    assert time.monotonic() - began < 10
    assert _retries(scene, "timeout") == before + 1
    scene.upstream.release()


def test_pull__a_connection_stalls_beside_others__it_alone_is_replaced(line: Scene) -> None:
    digest = _layer(line)
    line.upstream.dials.blob_rate = 2 * MIB
    reader = line.read(digest).wait_for(1)
    eventually(lambda: line.upstream.counters.requests("GET", "cdn") > 4, "there are others")
    before = _retries(line, "timeout")
    line.upstream.dials.blob_stall, line.upstream.dials.blob_stall_times = 1000, 1
    eventually(lambda: line.upstream.dials.blob_stall_times == 0, "one stalls")
    assert reader.wait().digest == digest
    assert _retries(line, "timeout") == before + 1
    assert line.upstream.counters.sent(digest) <= _SIZE + _MOST_MORE
    line.upstream.release()


def test_pull__a_connection_crawls_beside_others__it_is_replaced(line: Scene) -> None:
    digest = _layer(line)
    line.upstream.dials.blob_rate = 2 * MIB
    reader = line.read(digest).wait_for(1)
    eventually(lambda: line.upstream.counters.requests("GET", "cdn") > 4, "there are others")
    before = _retries(line, "timeout")
    line.upstream.dials.blob_crawl_times = 2
    eventually(lambda: not line.upstream.dials.blob_crawl_times, "two crawl")
    began = time.monotonic()
    assert reader.wait().digest == digest
    assert time.monotonic() - began < 60
    assert _retries(line, "timeout") >= before + 2
    assert line.upstream.counters.sent(digest) <= _SIZE + 2 * _MOST_MORE


@pytest.mark.parametrize("status", [429, 503])
def test_pull__storage_refuses_more_connections__those_that_are_there_bring_it(line: Scene, status: int) -> None:
    digest = _layer(line)
    reader = line.read(digest).wait_for(1)
    line.upstream.dials.failures = [Failure(status=status, kind="cdn", times=6)]
    assert reader.wait().digest == digest
    line.assert_fetched_once(digest, _SIZE)


def test_pull__resumed_after_a_kill__the_holes_alone_are_fetched(upstream: Upstream, tmp_path: Path) -> None:
    digest = upstream.push_random_blob("library/holes", _SIZE)
    upstream.dials.redirect, upstream.dials.blob_rate = True, _RATE
    replica = Replica(tmp_path / "store", upstreams={"docker.io": upstream.url}).start()
    scene = Scene(upstream, replica, "library/holes")
    try:
        reader = scene.read(digest)
        eventually(lambda: upstream.counters.sent(digest) > _SIZE // 2, "it is half there")
        replica.kill()
        reader.wait()
        replica.start()
        assert scene.get(digest).digest == digest
        assert upstream.counters.sent(digest) <= _SIZE + 16 * MIB
        assert_nothing_wrong(replica.store)
    finally:
        replica.kill()


@pytest.mark.parametrize("most", [1, 4])
def test_pull__few_connections_are_allowed__everybody_has_a_turn(upstream: Upstream, tmp_path: Path, most: int) -> None:
    upstream.dials.redirect, upstream.dials.blob_rate = True, 20 * MIB
    digests = [upstream.push_random_blob("library/few", 12 * MIB, seed) for seed in range(4)]
    table = {"url": upstream.url, "max_connections": most}
    with Replica(tmp_path / "store", upstreams={"docker.io": table}) as replica:
        scene = Scene(upstream, replica, "library/few")
        readers = [scene.read(digest) for digest in digests]
        for reader, digest in zip(readers, digests, strict=True):
            assert reader.wait().digest == digest, reader
            scene.assert_fetched_once(digest, 12 * MIB)


@pytest.mark.parametrize("change", [-1000, 1000])
def test_pull__the_blob_has_another_size_than_its_descriptor__it_is_refused(scene: Scene, change: int) -> None:
    digest = _layer(scene)
    mismatches = scene.replica.metric("layover_digest_mismatches_total")
    scene.upstream.dials.blob_resize = change
    assert scene.get(digest).status == 503
    scene.upstream.dials.blob_resize = 0
    assert scene.get(digest).digest == digest
    assert scene.replica.metric("layover_digest_mismatches_total") == mismatches


@pytest.fixture
def capped(upstream: Upstream, tmp_path: Path) -> Iterator[Scene]:
    table = {"url": upstream.url, "bandwidth": "4MiB"}
    with Replica(tmp_path / "store", upstreams={"docker.io": table}) as replica:
        yield Scene(upstream, replica, "library/capped")


def test_pull__bandwidth_is_capped__however_many_connections(capped: Scene) -> None:
    size = 20 * MIB
    digest = capped.push(size)
    capped.upstream.dials.blob_rate = 3 * MIB
    before, began = _retries(capped, "timeout"), time.monotonic()
    assert capped.get(digest).digest == digest
    assert time.monotonic() - began > 0.9 * size / (4 * MIB)
    assert _retries(capped, "timeout") == before
    capped.assert_fetched_once(digest, size)
