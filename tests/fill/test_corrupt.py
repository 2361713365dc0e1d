"""Upstreams that send other bytes than the digest names."""

from __future__ import annotations

import pytest

from tests.chaos.reader import Reader, assert_nothing_wrong
from tests.chaos.scene import MIB, TAIL, Scene

_CLIENTS = 8


def _readers(scene: Scene, digest: str, size: int) -> list[Reader]:
    """Begin to read a blob several times while the registry waits in the middle of it, and let it go on."""
    scene.upstream.dials.blob_stall = size // 2
    readers = [scene.read(digest).wait_for(0) for _ in range(_CLIENTS)]
    scene.upstream.dials.blob_stall = None
    scene.upstream.release()
    return readers


def _mismatches(scene: Scene) -> float:
    return scene.replica.metric("layover_digest_mismatches_total", upstream="docker.io")


def test_pull__corrupt__nobody_completes_it_and_the_next_pull_is_right(scene: Scene) -> None:
    sizes = {"announced": 3 * MIB, "chunked": 3 * MIB + 1, "close": 3 * MIB + 2}
    digests = {length: scene.push(size) for length, size in sizes.items()}
    stays_corrupt = scene.push(2 * MIB)
    dials = scene.upstream.dials
    dials.blob_corrupt = True
    for length, digest in digests.items():
        dials.blob_length = length  # type: ignore[assignment]
        _assert_nobody_completes(scene, digest, sizes[length])
    _assert_nobody_completes(scene, stays_corrupt, 2 * MIB)
    dials.blob_digests = {stays_corrupt}
    asked = scene.upstream.counters.requests("GET", digest=stays_corrupt)
    again = [scene.read(stays_corrupt) for _ in range(_CLIENTS)]
    for digest, healed in [(digest, scene.read(digest)) for digest in digests.values()]:
        assert healed.wait().is_complete, healed
        assert healed.digest == digest
    assert not any(reader.wait().is_complete for reader in again), again
    assert scene.upstream.counters.requests("GET", digest=stays_corrupt) == asked + 1
    assert_nothing_wrong(scene.replica.store)


def _assert_nobody_completes(scene: Scene, digest: str, size: int) -> None:
    before = _mismatches(scene)
    for reader in _readers(scene, digest, size):
        assert not reader.wait().is_complete, reader
        assert reader.received <= size - TAIL, reader
    assert _mismatches(scene) == before + 1


@pytest.mark.parametrize("size", [1, 100, TAIL - 1, TAIL])
def test_pull__small_and_corrupt__no_byte_is_delivered(scene: Scene, size: int) -> None:
    digest = scene.push(size)
    scene.upstream.dials.blob_corrupt = True
    for reader in _readers(scene, digest, size):
        assert not reader.wait().is_complete, reader
        assert reader.received == 0, reader


def test_pull__just_above_the_tail_and_corrupt__only_the_bytes_before_it_are_delivered(scene: Scene) -> None:
    size = TAIL + 3
    digest = scene.push(size)
    scene.upstream.dials.blob_corrupt = True
    for reader in _readers(scene, digest, size):
        assert not reader.wait().is_complete, reader
        assert reader.received <= 3, reader


def test_read_range__of_the_tail_of_a_corrupt_blob(scene: Scene) -> None:
    size = MIB
    digest = scene.push(size)
    scene.upstream.dials.blob_corrupt = True
    ranges = [f"bytes={size - TAIL}-", f"bytes={size - TAIL - 10}-{size - TAIL + 10}", "bytes=-1"]
    readers = [scene.read(digest, {"Range": each}) for each in ranges]
    for reader, most in zip(readers, (0, 10, 0), strict=True):
        reader.wait()
        assert not (reader.status == 206 and reader.is_complete), reader
        assert reader.status == 503 or reader.received <= most, reader


@pytest.mark.parametrize("corruption", ["manifest_corrupt", "manifest_wrong_digest"])
def test_pull_manifest__corrupt(scene: Scene, corruption: str) -> None:
    image = scene.push_image(100)
    setattr(scene.upstream.dials, corruption, True)
    by_tag = scene.manifest(image.tag)
    assert by_tag.status == 503, by_tag.beginning
    by_digest = scene.manifest(image.index.digest)
    if corruption == "manifest_corrupt":
        assert by_digest.status == 503, by_digest.beginning
    else:
        assert by_digest.digest == image.index.digest
    scene.upstream.reset()
    for reference in (image.tag, image.index.digest):
        healed = scene.manifest(reference)
        assert healed.status == 200
        assert healed.digest == image.index.digest
