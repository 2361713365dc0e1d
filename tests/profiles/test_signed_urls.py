"""Blobs behind signed URLs, and what storage does to them: a client gets the right bytes, or is told."""

from __future__ import annotations

import contextlib
import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest

from tests.profiles.place import Place
from tests.upstream import Descriptor

MIB = 2**20
SIZE = 3 * MIB


@pytest.fixture
def blob(place: Place) -> Descriptor:
    """Return a layer of a held manifest, in storage that minds every byte of a URL, behind a token."""
    place.upstream.dials.auth, place.upstream.dials.redirect = "bearer", True
    image = place.push(SIZE)
    for digest in (image.index.digest, image.manifests[0].digest):
        place.fetch(f"manifests/{digest}", digest)
    place.upstream.counters.clear()
    return image.layers[0]


def assert_no_token_in_storage(place: Place) -> None:
    assert place.upstream.counters.authorizations("cdn") == []


class TestRedirects:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("cdn_authorization", [400, 403])
    def test_lead_to_the_bytes(
        self,
        status: Literal[301, 302, 303, 307, 308],
        cdn_authorization: Literal[400, 403],
        place: Place,
        blob: Descriptor,
    ) -> None:
        place.upstream.dials.redirect_status = status
        place.upstream.dials.cdn_authorization = cdn_authorization
        place.fetch_blob(blob)
        assert_no_token_in_storage(place)

    @pytest.mark.parametrize(
        "dials",
        [
            {"redirect_relative": True, "cdn_strict": False},
            {"redirect_hops": 2},
            {"redirect_hops": 10},
            {"cdn_hosts": ("127.0.0.1", "localhost")},
            {"redirect_head": False},
            {"blob_digest_header": False},
            {"blob_type": "binary/octet-stream"},
            {"blob_length": "chunked"},
            {"blob_length": "close"},
        ],
        ids=str,
    )
    def test_lead_to_the_bytes__in_any_way(self, dials: dict[str, object], place: Place, blob: Descriptor) -> None:
        for name, value in dials.items():
            setattr(place.upstream.dials, name, value)
        answer = place.fetch_blob(blob)
        assert answer.headers["Docker-Content-Digest"] == blob.digest
        assert answer.length == SIZE
        assert_no_token_in_storage(place)

    @pytest.mark.parametrize("hops", [0, 11])
    def test_end__without_an_end(self, hops: int, place: Place, blob: Descriptor) -> None:
        place.upstream.dials.redirect_hops = hops
        assert place.ask(f"blobs/{blob.digest}").status == 503

    def test_are_answered_for_head__where_a_signed_url_is_not(self, place: Place) -> None:
        place.upstream.dials.redirect, place.upstream.dials.cdn_head_status = True, 403
        digest = place.upstream.push_random_blob(place.repository, SIZE)
        answer = place.ask(f"blobs/{digest}", method="HEAD")
        assert (answer.status, answer.length) == (200, SIZE)


class TestInterruptions:
    def test_are_resumed__at_the_byte(self, place: Place, blob: Descriptor) -> None:
        place.upstream.dials.blob_cut, place.upstream.dials.blob_cut_times = MIB, 2
        place.fetch_blob(blob)
        assert place.upstream.counters.overlaps(blob.digest) == 0
        assert_no_token_in_storage(place)

    @pytest.mark.parametrize("dials", [{"cdn_uses": 1}, {"cdn_seconds": 0.5}], ids=str)
    def test_are_resumed__by_a_new_url_where_the_old_one_has_expired(
        self, dials: dict[str, object], place: Place, blob: Descriptor
    ) -> None:
        for name, value in dials.items():
            setattr(place.upstream.dials, name, value)
        place.upstream.dials.blob_cut, place.upstream.dials.blob_cut_times = MIB, 2
        place.fetch_blob(blob)
        assert place.upstream.counters.overlaps(blob.digest) == 0
        assert place.upstream.counters.requests("GET", "blob", digest=blob.digest) >= 3

    def test_are_resumed__by_the_token_that_follows_an_expired_one(self, place: Place, blob: Descriptor) -> None:
        place.upstream.dials.blob_cut, place.upstream.dials.blob_cut_times = MIB, 1
        place.upstream.expire_tokens()
        place.fetch_blob(blob)

    def test_are_resumed__from_the_beginning_where_ranges_are_ignored(self, place: Place, blob: Descriptor) -> None:
        place.upstream.dials.blob_ranges = "ignored"
        place.upstream.dials.blob_cut, place.upstream.dials.blob_cut_times = MIB, 1
        place.fetch_blob(blob)

    @pytest.mark.parametrize("ranges", ["wrong", "shifted"])
    def test_are_not_mended__by_other_bytes(
        self, ranges: Literal["wrong", "shifted"], place: Place, blob: Descriptor
    ) -> None:
        place.upstream.dials.blob_ranges = ranges
        place.upstream.dials.blob_cut, place.upstream.dials.blob_cut_times = MIB, 1
        with ThreadPoolExecutor(1) as executor:
            fetching = executor.submit(place.fetch_blob, blob)
            deadline = time.monotonic() + 30
            # The first request, and one for the rest, which brings what nobody asked for.
            while place.upstream.counters.requests("GET", "cdn") < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            place.upstream.dials.blob_ranges = "served"
            fetching.result(60)

    def test_leave_nothing_behind__where_ranges_are_refused(self, place: Place, blob: Descriptor) -> None:
        place.upstream.dials.blob_ranges = "refused"
        place.upstream.dials.blob_cut, place.upstream.dials.blob_cut_times = MIB, 1
        with contextlib.suppress(http.client.IncompleteRead):
            place.fetch_blob(blob)
        place.fetch_blob(blob)

    def test_are_waited_for__a_while(self, place: Place, blob: Descriptor) -> None:
        dials = place.upstream.dials
        dials.blob_stall, dials.blob_stall_seconds, dials.blob_stall_times = MIB, 0.5, 1
        place.fetch_blob(blob)

    def test_are_no_interruptions__where_more_follows(self, place: Place, blob: Descriptor) -> None:
        place.upstream.dials.blob_extra = 5_000
        place.fetch_blob(blob)

    @pytest.mark.parametrize("dials", [{"blob_resize": 1000}, {"blob_resize": -1000}], ids=str)
    def test_are_told__where_the_blob_has_another_size(
        self, dials: dict[str, object], place: Place, blob: Descriptor
    ) -> None:
        for name, value in dials.items():
            setattr(place.upstream.dials, name, value)
        try:
            answer = place.ask(f"blobs/{blob.digest}")
        except http.client.IncompleteRead:
            return
        assert answer.status == 503, answer.status
