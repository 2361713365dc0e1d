"""Answers without an end, without a beginning, or swollen: the pull that meets one is told, and no other notices."""

from __future__ import annotations

import http.client

import pytest

from tests.profiles.place import MOVING, Place
from tests.upstream import Image

MIB = 2**20


@pytest.fixture
def neighbour(place: Place) -> Image:
    """Return an image that the replica holds, of the same registry."""
    image = place.push(repository="team/neighbour", seed=1)
    place.pull(image)
    return image


class TestFloods:
    @pytest.mark.parametrize("kind", ["manifest", "tags", "referrers", "token"])
    def test_without_an_end__are_cut_off(self, kind: str, place: Place, neighbour: Image) -> None:
        place.upstream.dials.auth = "bearer"
        image = place.push()
        place.upstream.dials.endless = {kind}
        path = {"tags": "tags/list", "referrers": f"referrers/{image.index.digest}"}.get(kind, "manifests/1")
        assert place.ask(path).status in (404, 503)
        # What is in the kernel's buffers was never read.
        assert place.upstream.counters.flooded < 3 * (16 + 16) * MIB
        place.pull(neighbour)

    def test_without_an_end__are_no_blob(self, place: Place, neighbour: Image) -> None:
        image = place.push()
        for digest in (image.index.digest, image.manifests[0].digest):
            place.fetch(f"manifests/{digest}", digest)
        place.upstream.dials.endless = {"blob"}
        with pytest.raises(http.client.IncompleteRead):
            place.ask(f"blobs/{image.layers[0].digest}")
        place.pull(neighbour)

    @pytest.mark.parametrize("kind", ["manifest", "tags", "token"])
    def test_of_gzip__are_refused(self, kind: str, place: Place, neighbour: Image) -> None:
        place.upstream.dials.auth = "bearer"
        place.push()
        place.upstream.dials.gzip_bomb = {kind}
        assert place.ask("tags/list" if kind == "tags" else "manifests/1").status in (403, 503)
        place.pull(neighbour)

    @pytest.mark.parametrize("line", [4000, MIB])
    @pytest.mark.parametrize("kind", ["manifest", "blob", "token"])
    def test_of_headers__are_refused_or_ignored(self, line: int, kind: str, place: Place, neighbour: Image) -> None:
        place.upstream.dials.auth = "bearer"
        image = place.push()
        place.upstream.dials.heavy_headers, place.upstream.dials.heavy_header_line = {kind}, line
        path = f"blobs/{image.layers[0].digest}" if kind == "blob" else "manifests/1"
        answer = place.ask(path)
        assert answer.status in (200, 503)
        assert len(bytes(answer.headers)) < 4000
        place.pull(neighbour)


class TestDrips:
    @pytest.mark.parametrize(
        "dials",
        # Only a GET has a body; one comes where a HEAD names no digest.
        [{"drip_headers": {"manifest"}}, {"drip_body": {"manifest"}, "manifest_head_digest": False}],
        ids=["headers", "body"],
    )
    def test_make_a_tag_stale(self, dials: dict[str, object], place: Place) -> None:
        image = place.push(tag=MOVING)
        place.pull(image)
        for name, value in {**dials, "drip_seconds": 0.01}.items():
            setattr(place.upstream.dials, name, value)
        answer = place.fetch(f"manifests/{MOVING}", image.index.digest)
        assert "stale" in answer.headers["Cache-Status"]
