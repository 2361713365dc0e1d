"""Upstreams that break off, refuse or ignore ranges, and disagree about sizes."""

from __future__ import annotations

import pytest

from tests.chaos.scene import KIB, MIB, TAIL, Scene, eventually
from tests.upstream import Failure

_CUT = 5 * MIB


@pytest.mark.parametrize("redirected", [False, True], ids=["direct", "redirected"])
def test_pull__every_answer_is_cut_after_5_mib(scene: Scene, redirected: bool) -> None:
    size = 60 * MIB
    digest = scene.push(size)
    scene.upstream.dials.redirect = redirected
    scene.upstream.dials.blob_cut = _CUT
    reader = scene.get(digest)
    assert reader.is_complete, reader
    assert reader.digest == digest
    scene.assert_fetched_once(digest, size)
    assert len(scene.upstream.counters.spans(digest)) >= 12


def test_pull__several_readers_while_every_answer_is_cut(scene: Scene) -> None:
    size = 20 * MIB
    digest = scene.push(size)
    scene.upstream.dials.blob_cut = 3 * MIB + 1
    readers = [scene.read(digest) for _ in range(8)]
    assert {reader.wait().digest for reader in readers} == {digest}
    assert all(reader.is_complete for reader in readers)
    scene.assert_fetched_once(digest, size)


def test_pull__cut_by_a_reset(scene: Scene) -> None:
    digest = scene.push(12 * MIB)
    scene.upstream.dials.blob_cut = _CUT
    scene.upstream.dials.blob_cut_reset = True
    reader = scene.get(digest)
    assert reader.is_complete, reader
    assert reader.digest == digest


def test_pull__redirected_to_urls_that_are_good_for_one_request(scene: Scene) -> None:
    size = 12 * MIB
    digest = scene.push(size)
    scene.upstream.dials.redirect = True
    scene.upstream.dials.cdn_uses = 1
    scene.upstream.dials.blob_cut = _CUT
    reader = scene.get(digest)
    assert reader.is_complete, reader
    assert reader.digest == digest
    scene.assert_fetched_once(digest, size)


def test_pull__cut_and_the_storage_ignores_ranges(scene: Scene) -> None:
    digest = scene.push(12 * MIB)
    scene.upstream.dials.blob_ranges = "ignored"
    scene.upstream.dials.blob_cut = _CUT
    scene.upstream.dials.blob_cut_times = 2
    reader = scene.get(digest)
    assert reader.is_complete, reader
    assert reader.digest == digest


def test_pull__cut_and_the_rest_is_refused_for_a_while(scene: Scene) -> None:
    size = 12 * MIB
    digest = scene.push(size)
    scene.upstream.dials.blob_cut = _CUT
    scene.upstream.dials.blob_cut_times = 1
    scene.upstream.dials.failures = [Failure(status=503, kind="blob", method="GET", skip=1, times=4)]
    reader = scene.get(digest)
    assert reader.is_complete, reader
    assert reader.digest == digest
    scene.assert_fetched_once(digest, size)


def test_pull__cut_and_the_rest_comes_with_another_content_range(scene: Scene) -> None:
    digest = scene.push(12 * MIB)
    scene.upstream.dials.blob_cut = _CUT
    scene.upstream.dials.blob_cut_times = 2  # what comes for the first range is not read
    scene.upstream.dials.blob_ranges = "wrong"
    reader = scene.read(digest).wait_for(_CUT)
    eventually(lambda: scene.upstream.counters.requests(digest=digest) >= 2, "the rest was asked for")
    assert reader.received == _CUT
    scene.upstream.dials.blob_ranges = "served"
    assert reader.wait().is_complete, reader
    assert reader.digest == digest


def test_pull__cut_and_the_rest_is_answered_416(scene: Scene) -> None:
    digest = scene.push(12 * MIB)
    scene.upstream.dials.blob_cut = _CUT
    scene.upstream.dials.blob_cut_times = 1
    scene.upstream.dials.blob_ranges = "refused"
    again = scene.get(digest)
    assert again.digest == digest or not again.is_complete
    scene.upstream.dials.blob_ranges = "served"
    after = scene.get(digest)
    assert after.is_complete, after
    assert after.digest == digest


def test_pull__what_came_before_a_416_was_of_something_else(scene: Scene) -> None:
    digest = scene.push(8 * MIB)
    dials = scene.upstream.dials
    dials.blob_corrupt = True  # in the middle: among the bytes that come before the cut
    dials.blob_cut = _CUT
    dials.blob_cut_times = 1
    dials.failures = [Failure(status=503, kind="blob", method="GET", skip=1)]
    reader = scene.read(digest).wait_for(_CUT)
    dials.blob_corrupt = False
    dials.blob_ranges = "refused"
    dials.failures = []
    reader.wait()
    assert not reader.is_complete or reader.digest == digest, reader
    dials.blob_ranges = "served"
    after = scene.get(digest)
    assert after.is_complete, after
    assert after.digest == digest


@pytest.mark.parametrize("change", [-1, 1, -100 * KIB, 100 * KIB])
@pytest.mark.parametrize("length", ["announced", "chunked", "close"])
def test_pull__the_blob_has_another_size_than_its_descriptor(scene: Scene, change: int, length: str) -> None:
    image = scene.push_image(MIB)
    (layer,) = image.layers
    for reference in (image.index.digest, image.manifests[0].digest):
        assert scene.manifest(reference).is_complete
    dials = scene.upstream.dials
    dials.blob_resize = change
    dials.blob_length = length  # type: ignore[assignment]
    reader = scene.get(layer.digest)
    assert not (reader.status == 200 and reader.is_complete), reader
    assert reader.status == 503 or reader.received <= layer.size - TAIL, reader
    eventually(lambda: scene.replica.metric("layover_fills_active") == 0, "the fill has given up")
    dials.blob_resize = 0
    after = scene.get(layer.digest)
    assert after.is_complete, after
    assert after.digest == layer.digest


def test_pull__more_bytes_than_content_length_says(scene: Scene) -> None:
    size = 2 * MIB
    digest = scene.push(size)
    scene.upstream.dials.blob_extra = 100 * KIB
    reader = scene.get(digest)
    assert reader.is_complete, reader
    assert reader.digest == digest


def test_pull__fewer_bytes_than_content_length_says__they_are_asked_for_again(scene: Scene) -> None:
    size = 2 * MIB
    digest = scene.push(size)
    scene.upstream.dials.blob_extra = -100 * KIB
    reader = scene.read(digest).wait_for(size - 100 * KIB)
    eventually(lambda: scene.upstream.counters.requests("GET", digest=digest) >= 3, "the rest was asked for twice")
    assert reader.received == size - 100 * KIB
    scene.upstream.dials.blob_extra = 0
    assert reader.wait().is_complete, reader
    assert reader.digest == digest
    scene.assert_fetched_once(digest, size)
