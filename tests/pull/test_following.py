"""Readers of a blob that is still on its way, byte by byte, while the registry holds still."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.chaos.scene import KIB, MIB, TAIL, Scene, eventually

_SIZE = 4 * MIB


@pytest.fixture
def stalled(scene: Scene) -> Iterator[Scene]:
    """Return a scene whose registry sends half of a blob and waits."""
    scene.upstream.dials.blob_stall = _SIZE // 2
    yield scene
    scene.upstream.release()


def _assert_prefix(scene: Scene, digest: str, received: int, got: str) -> None:
    expected = scene.upstream.content(digest)[:received]
    assert got == f"sha256:{hashlib.sha256(expected).hexdigest()}"


@pytest.mark.parametrize(
    "sent",
    [0, 1, TAIL, _SIZE // 2, _SIZE - TAIL - 1, _SIZE - TAIL, _SIZE - TAIL + 1, _SIZE - 1],
)
def test_follow__the_registry_stalls__each_byte_that_came_is_there_but_for_the_tail(scene: Scene, sent: int) -> None:
    digest = scene.push(_SIZE)
    scene.upstream.dials.blob_stall = sent
    first = scene.read(digest).wait_for(min(sent, _SIZE - TAIL))
    eventually(lambda: scene.upstream.counters.sent(digest) == sent, "the registry stalls")
    late = scene.read(digest).wait_for(min(sent, _SIZE - TAIL))
    for reader in (first, late):
        assert reader.status == 200
        assert reader.headers["Content-Length"] == str(_SIZE)
        assert reader.headers["Docker-Content-Digest"] == digest
        assert reader.received == min(sent, _SIZE - TAIL)
        _assert_prefix(scene, digest, reader.received, reader.digest)
    assert first.headers["Cache-Status"] == "layover; fwd=miss; stored"
    assert late.headers["Cache-Status"] == "layover; fwd=miss; collapsed"
    scene.upstream.release()
    for reader in (first, late):
        assert reader.wait().is_complete, reader
        assert reader.digest == digest
    scene.assert_fetched_once(digest, _SIZE)


def test_follow__the_tail_is_all_that_is_missing__no_byte_of_it_is_sent(scene: Scene) -> None:
    digest = scene.push(TAIL)
    scene.upstream.dials.blob_stall = TAIL - 1
    reader = scene.read(digest).wait_for(0)
    eventually(lambda: scene.upstream.counters.sent(digest) == TAIL - 1, "the registry stalls")
    late = scene.read(digest).wait_for(0)
    assert (reader.received, late.received) == (0, 0)
    scene.upstream.release()
    assert {reader.wait().digest, late.wait().digest} == {digest}


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-99", 0, 100),
        (f"bytes={MIB}-{MIB + 9}", MIB, MIB + 10),
        (f"bytes={_SIZE // 2 - 1}-{_SIZE // 2 - 1}", _SIZE // 2 - 1, _SIZE // 2),
    ],
)
def test_read_range__inside_what_has_come__is_answered_at_once(
    stalled: Scene, asked: str, start: int, stop: int
) -> None:
    digest = stalled.push(_SIZE)
    whole = stalled.read(digest).wait_for(_SIZE // 2)
    part = stalled.get(digest, {"Range": asked})
    assert part.status == 206
    assert part.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{_SIZE}"
    assert part.is_complete
    assert part.beginning == stalled.upstream.content(digest)[start:stop]
    assert not whole.has_ended


@pytest.mark.parametrize(
    "asked", [f"bytes={_SIZE // 2 - 10}-{_SIZE // 2 + 9}", f"bytes={_SIZE - TAIL - 5}-", "bytes=-1"]
)
def test_read_range__beyond_what_has_come__waits_for_the_rest(stalled: Scene, asked: str) -> None:
    digest = stalled.push(_SIZE)
    whole = stalled.read(digest).wait_for(_SIZE // 2)
    part = stalled.read(digest, {"Range": asked}).wait_for(0)
    first, _, last = part.headers["Content-Range"].removeprefix("bytes ").partition("/")[0].partition("-")
    start, stop = int(first), int(last) + 1
    there = max(0, min(_SIZE // 2, stop) - start)
    part.wait_for(there)
    stalled.get(digest, {"Range": "bytes=0-0"})
    assert part.received == there
    stalled.upstream.release()
    assert part.wait().is_complete
    assert part.beginning == stalled.upstream.content(digest)[start:stop]
    assert whole.wait().digest == digest
    stalled.assert_fetched_once(digest, _SIZE)


def test_read_range__first_of_all__starts_the_fill_of_the_whole(scene: Scene) -> None:
    image = scene.push_image(_SIZE)
    scene.manifest(image.manifests[0].digest)
    digest = image.layers[0].digest
    part = scene.get(digest, {"Range": f"bytes={MIB}-{2 * MIB - 1}"})
    assert part.status == 206
    assert part.received == MIB
    assert scene.get(digest).digest == digest
    scene.assert_fetched_once(digest, _SIZE)


def test_leave__the_only_reader_leaves__the_fill_goes_on(stalled: Scene) -> None:
    digest = stalled.push(_SIZE)
    stalled.read(digest).wait_for(_SIZE // 2).kill()
    stalled.upstream.release()
    eventually(lambda: stalled.upstream.counters.sent(digest) == _SIZE, "the fill goes on")
    later = stalled.get(digest)
    assert later.is_complete, later
    assert later.digest == digest
    stalled.assert_fetched_once(digest, _SIZE)


def test_leave__the_reader_that_started_it__the_others_go_on(stalled: Scene) -> None:
    digest = stalled.push(_SIZE)
    first = stalled.read(digest).wait_for(_SIZE // 2)
    others = [stalled.read(digest).wait_for(_SIZE // 2) for _ in range(5)]
    first.kill()
    others[0].kill()
    stalled.upstream.release()
    for reader in others[1:]:
        assert reader.wait().is_complete, reader
        assert reader.digest == digest
    stalled.assert_fetched_once(digest, _SIZE)


@pytest.mark.parametrize("length", ["chunked", "close"])
def test_follow__unknown_size__a_sliding_tail_is_withheld(scene: Scene, length: str) -> None:
    digest = scene.push(_SIZE)
    scene.upstream.dials.blob_length = length  # type: ignore[assignment]
    scene.upstream.dials.blob_stall = MIB
    reader = scene.read(digest).wait_for(MIB - TAIL)
    late = scene.read(digest).wait_for(MIB - TAIL)
    for one in (reader, late):
        assert one.status == 200
        assert "Content-Length" not in one.headers
        assert one.received == MIB - TAIL
        _assert_prefix(scene, digest, one.received, one.digest)
    scene.upstream.release()
    for one in (reader, late):
        assert one.wait().is_complete, one
        assert one.digest == digest
    scene.assert_fetched_once(digest, _SIZE)
    after = scene.get(digest, {"Range": "bytes=10-19"})
    assert after.status == 206
    assert after.headers["Content-Range"] == f"bytes 10-19/{_SIZE}"


def test_read_range__unknown_size__is_answered_with_the_whole(scene: Scene) -> None:
    digest = scene.push(200 * KIB)
    scene.upstream.dials.blob_length = "chunked"
    scene.upstream.dials.blob_stall = 100 * KIB  # or its size may be known by the time of the answer
    reader = scene.read(digest, {"Range": "bytes=10-19"}).wait_for(0)
    eventually(lambda: scene.upstream.counters.sent(digest) == 100 * KIB, "the registry stalls")
    scene.upstream.release()
    reader.wait()
    assert reader.status == 200
    assert reader.is_complete
    assert reader.digest == digest


def test_follow__unknown_size_from_the_registry_known_from_the_manifest(scene: Scene) -> None:
    image = scene.push_image(_SIZE)
    scene.manifest(image.manifests[0].digest)
    digest = image.layers[0].digest
    scene.upstream.dials.blob_length = "chunked"
    scene.upstream.dials.blob_stall = MIB
    reader = scene.read(digest).wait_for(MIB)
    assert reader.headers["Content-Length"] == str(_SIZE)
    assert scene.get(digest, {"Range": "bytes=5-9"}).beginning == scene.upstream.content(digest)[5:10]
    scene.upstream.release()
    assert reader.wait().is_complete, reader
    assert reader.digest == digest


def test_follow__a_reader_that_takes_nothing__holds_nobody_up(scene: Scene) -> None:
    size = 40 * MIB
    digest = scene.push(size)
    idle = scene.read(digest)
    idle.hold()
    quick = scene.get(digest)
    assert quick.is_complete, quick
    assert quick.digest == digest
    idle.go_on()
    assert idle.wait().is_complete, idle
    assert idle.digest == digest
    scene.assert_fetched_once(digest, size)
