"""Blobs go wrong as the dials say: cut, stalled, corrupt, of the wrong length, redirected."""

from __future__ import annotations

import gzip
import threading
import time
import urllib.error
import urllib.request
from typing import Literal

import pytest

from tests.upstream import Upstream
from tests.upstream.exchange import ask

MIB = 2**20


class TestBlobDials:
    def test_cuts_an_answer__after_the_exact_byte(self, upstream: Upstream) -> None:
        digest = upstream.push_random_blob("library/app", 12 * MIB, seed=1)
        upstream.dials.blob_cut = 5 * MIB
        path, content = f"/v2/library/app/blobs/{digest}", upstream.content(digest)
        replies = [ask(upstream.url, path, Range=f"bytes={start}-") for start in (0, 5 * MIB, 10 * MIB)]
        assert [len(reply.body) for reply in replies] == [5 * MIB, 5 * MIB, 2 * MIB]
        assert [int(reply.headers["content-length"]) for reply in replies] == [12 * MIB, 7 * MIB, 2 * MIB]
        assert not any(reply.reset for reply in replies)
        assert b"".join(reply.body for reply in replies) == content
        assert upstream.counters.overlaps(digest) == 0
        assert upstream.counters.sent(digest) == 12 * MIB

    def test_cuts_so_many_times__then_heals(self, upstream: Upstream) -> None:
        digest = upstream.push_random_blob("library/app", 2 * MIB, seed=1)
        upstream.dials.blob_cut, upstream.dials.blob_cut_times = MIB, 2
        path = f"/v2/library/app/blobs/{digest}"
        assert [len(ask(upstream.url, path).body) for _ in range(3)] == [MIB, MIB, 2 * MIB]

    def test_cuts_by_reset(self, upstream: Upstream) -> None:
        digest = upstream.push_random_blob("library/app", 2 * MIB, seed=1)
        upstream.dials.blob_cut, upstream.dials.blob_cut_reset = MIB, True
        assert ask(upstream.url, f"/v2/library/app/blobs/{digest}").reset
        assert upstream.counters.sent(digest) == MIB

    def test_stalls__until_released(self, upstream: Upstream) -> None:
        digest = upstream.push_random_blob("library/app", 2 * MIB, seed=1)
        upstream.dials.blob_stall = MIB
        bodies: list[bytes] = []
        path = f"/v2/library/app/blobs/{digest}"
        reader = threading.Thread(target=lambda: bodies.append(ask(upstream.url, path).body))
        reader.start()
        reader.join(0.5)
        assert reader.is_alive()
        assert upstream.counters.sent(digest) == MIB
        upstream.release()
        reader.join(20)
        assert bodies == [upstream.content(digest)]

    @pytest.mark.parametrize("dial", ["blob_rate", "blob_rate_total"])
    def test_slows_down(self, upstream: Upstream, dial: str) -> None:
        digest = upstream.push_random_blob("library/app", MIB, seed=1)
        setattr(upstream.dials, dial, 4 * MIB)
        began = time.monotonic()
        assert len(ask(upstream.url, f"/v2/library/app/blobs/{digest}").body) == MIB
        assert time.monotonic() - began >= 0.2

    def test_corrupts__the_blobs_named(self, upstream: Upstream) -> None:
        bad = upstream.push_random_blob("library/app", MIB, seed=1)
        good = upstream.push_random_blob("library/app", MIB, seed=2)
        upstream.dials.blob_corrupt, upstream.dials.blob_digests = True, {bad}
        bodies = {digest: ask(upstream.url, f"/v2/library/app/blobs/{digest}").body for digest in (bad, good)}
        differing = sum(one != two for one, two in zip(bodies[bad], upstream.content(bad), strict=True))
        assert differing == 1
        assert bodies[good] == upstream.content(good)

    @pytest.mark.parametrize(
        ("dials", "announced", "sent"),
        [
            ({"blob_extra": 10}, "1000", 1010),
            ({"blob_extra": -10}, "1000", 990),
            ({"blob_resize": 10}, "1010", 1010),
            ({"blob_resize": -10}, "990", 990),
            ({"blob_length": "close"}, None, 1000),
        ],
    )
    def test_lies_about_length(
        self, upstream: Upstream, dials: dict[str, object], announced: str | None, sent: int
    ) -> None:
        digest = upstream.push_random_blob("library/app", 1000, seed=1)
        for name, value in dials.items():
            setattr(upstream.dials, name, value)
        reply = ask(upstream.url, f"/v2/library/app/blobs/{digest}")
        assert reply.headers.get("content-length") == announced
        assert len(reply.body) == sent

    def test_sends_chunks__without_a_length(self, upstream: Upstream) -> None:
        digest = upstream.push_random_blob("library/app", MIB, seed=1)
        upstream.dials.blob_length = "chunked"
        with urllib.request.urlopen(f"{upstream.url}/v2/library/app/blobs/{digest}") as answer:
            assert answer.headers["Content-Length"] is None
            assert answer.read() == upstream.content(digest)
        assert upstream.counters.sent(digest) == MIB

    def test_packs__where_gzip_is_accepted(self, upstream: Upstream) -> None:
        digest = upstream.push_blob("library/app", b"plain" * 1000)
        upstream.dials.blob_gzip = True
        path = f"/v2/library/app/blobs/{digest}"
        assert gzip.decompress(ask(upstream.url, path, Accept_Encoding="gzip").body) == b"plain" * 1000
        assert ask(upstream.url, path, Accept_Encoding="identity").body == b"plain" * 1000

    @pytest.mark.parametrize(
        ("mode", "status", "content_range"),
        [("ignored", 200, None), ("wrong", 206, "bytes 11-1000/1001"), ("refused", 416, "bytes */1000")],
    )
    def test_mistreats_ranges(
        self, upstream: Upstream, mode: Literal["ignored", "wrong", "refused"], status: int, content_range: str | None
    ) -> None:
        digest = upstream.push_random_blob("library/app", 1000, seed=1)
        upstream.dials.blob_ranges = mode
        reply = ask(upstream.url, f"/v2/library/app/blobs/{digest}", Range="bytes=10-")
        assert (reply.status, reply.headers.get("content-range")) == (status, content_range)


class TestRedirects:
    def test_redirects_to_the_cdn__that_wants_the_raw_query_and_no_token(self, upstream: Upstream) -> None:
        digest = upstream.push_random_blob("library/app", 1000, seed=1)
        upstream.dials.redirect = True
        reply = ask(upstream.url, f"/v2/library/app/blobs/{digest}")
        assert (reply.status, reply.body) == (307, b"")
        target = reply.headers["location"]
        assert target.startswith(upstream.cdn_url + "/")
        path = target.removeprefix(upstream.cdn_url)
        assert ask(upstream.cdn_url, path).body == upstream.content(digest)
        assert ask(upstream.cdn_url, path, Authorization="Bearer x").status == 400
        assert ask(upstream.cdn_url, path.replace("%40", "@")).status == 403
        assert upstream.counters.requests(kind="blob") == 1
        assert upstream.counters.requests(kind="cdn", digest=digest) == 3
        assert upstream.counters.sent(digest) == 1000

    def test_redirects_in_hops(self, upstream: Upstream) -> None:
        digest = upstream.push_random_blob("library/app", 1000, seed=1)
        upstream.dials.redirect, upstream.dials.redirect_hops = True, 3
        with urllib.request.urlopen(f"{upstream.url}/v2/library/app/blobs/{digest}") as answer:
            assert answer.read() == upstream.content(digest)
        assert upstream.counters.requests(kind="cdn") == 3

    def test_redirects_for_ever(self, upstream: Upstream) -> None:
        digest = upstream.push_random_blob("library/app", 1000, seed=1)
        upstream.dials.redirect, upstream.dials.redirect_hops = True, 0
        with pytest.raises(urllib.error.HTTPError, match="307"):
            urllib.request.urlopen(f"{upstream.url}/v2/library/app/blobs/{digest}")
        assert upstream.counters.requests(kind="cdn") >= 10

    def test_redirects_relative(self, upstream: Upstream) -> None:
        digest = upstream.push_random_blob("library/app", 1000, seed=1)
        upstream.dials.redirect = upstream.dials.redirect_relative = True
        target = ask(upstream.url, f"/v2/library/app/blobs/{digest}").headers["location"]
        assert target.startswith("/")
        assert ask(upstream.url, target).body == upstream.content(digest)

    def test_signed_url_ends__after_its_uses(self, upstream: Upstream) -> None:
        digest = upstream.push_random_blob("library/app", 1000, seed=1)
        upstream.dials.redirect, upstream.dials.cdn_uses = True, 1
        target = ask(upstream.url, f"/v2/library/app/blobs/{digest}").headers["location"]
        path = target.removeprefix(upstream.cdn_url)
        assert [ask(upstream.cdn_url, path).status for _ in range(2)] == [200, 403]
