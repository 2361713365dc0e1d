"""Answers that no registry gives, and the little ways in which real ones are odd."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Literal

import pytest

from tests.upstream import Upstream
from tests.upstream.exchange import ask, dial

PATH = "/v2/library/app/manifests/1"
MIB = 2**20


@pytest.fixture
def filled(upstream: Upstream) -> Upstream:
    """Return a registry with an image."""
    upstream.push_image("library/app", "1", layers=(1000,))
    return upstream


class TestFloods:
    def test_have_no_end(self, filled: Upstream) -> None:
        filled.dials.endless = {"manifest"}
        received = 0
        with dial(filled.url) as connection:
            connection.sendall(f"GET {PATH} HTTP/1.1\r\nHost: upstream\r\n\r\n".encode())
            while received < 8 * MIB:
                received += len(connection.recv(MIB))
        assert filled.counters.flooded >= 7 * MIB
        assert ask(filled.url, PATH, "HEAD").status == 200

    def test_hold_much_in_little(self, filled: Upstream) -> None:
        filled.dials.gzip_bomb = {"manifest"}
        reply = ask(filled.url, PATH)
        assert reply.headers["content-encoding"] == "gzip"
        assert len(reply.body) < 2 * MIB
        inflated = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(reply.body)
        assert len(inflated) * 64 == 2**30
        assert reply.body.count(gzip.compress(bytes(2**24), mtime=0)) == 64

    @pytest.mark.parametrize("line", [4000, MIB])
    def test_are_of_headers(self, line: int, filled: Upstream) -> None:
        filled.dials.heavy_headers, filled.dials.heavy_header_line = {"manifest", "blob"}, line
        digest = filled.push_random_blob("library/app", 10)
        for path in (PATH, f"/v2/library/app/blobs/{digest}"):
            reply = ask(filled.url, path)
            assert reply.status == 200
            assert sum(len(value) for name, value in reply.headers.items() if name.startswith("x-filler")) > 0.9 * MIB
            assert filled.content(digest) == reply.body or path == PATH

    @pytest.mark.parametrize("name", ["drip_headers", "drip_body"])
    def test_come_byte_by_byte(self, name: str, filled: Upstream) -> None:
        setattr(filled.dials, name, {"manifest"})
        filled.dials.drip_seconds = 0.001
        received = b""
        with dial(filled.url) as connection:
            connection.sendall(f"GET {PATH} HTTP/1.1\r\nHost: upstream\r\n\r\n".encode())
            while len(received) < 200:
                received += connection.recv(100)
        assert (b"\r\n\r\n" in received) == (name == "drip_body")


class TestOddities:
    @pytest.mark.parametrize("shape", ["json", "plain", "html", "code", "empty"])
    def test_not_found__in_every_shape(
        self, shape: Literal["json", "plain", "html", "code", "empty"], filled: Upstream
    ) -> None:
        filled.dials.not_found_body, filled.dials.not_found_code = shape, "TAG_EXPIRED"
        for path in ("/v2/library/app/manifests/2", "/v2/library/none/tags/list"):
            reply = ask(filled.url, path)
            assert reply.status == 404
            assert (b"TAG_EXPIRED" in reply.body) == (shape == "json")

    def test_range__off_by_one_with_the_right_size(self, filled: Upstream) -> None:
        digest = filled.push_random_blob("library/app", 100)
        filled.dials.blob_ranges = "shifted"
        for asked, first, last in (("10-", 9, 98), ("0-49", 1, 49)):
            reply = ask(filled.url, f"/v2/library/app/blobs/{digest}", Range=f"bytes={asked}")
            assert reply.headers["content-range"] == f"bytes {first}-{last}/100"
            assert reply.body == filled.content(digest)[first : last + 1]

    def test_tags__are_digests_too(self, filled: Upstream) -> None:
        filled.dials.tags_digests = True
        tags = json.loads(ask(filled.url, "/v2/library/app/tags/list").body)["tags"]
        assert tags[0] == "1"
        assert all(tag.startswith("sha256:") for tag in tags[1:])
        assert len(tags) == 4

    def test_lists__lead_to_themselves(self, filled: Upstream) -> None:
        filled.dials.tags_link, filled.dials.referrers_loop = "loop", True
        filled.push_manifest("library/app", "2", b"{}", "text/plain")
        path = "/v2/library/app/tags/list?n=1"
        assert ask(filled.url, path).headers["link"] == f'<{path}>; rel="next"'
        path = f"/v2/library/app/referrers/sha256:{'0' * 64}"
        assert ask(filled.url, path).headers["link"] == f'<{path}>; rel="next"'

    def test_referrers__end_elsewhere(self, filled: Upstream) -> None:
        path = f"/v2/library/app/referrers/sha256:{'0' * 64}"
        filled.dials.referrers, filled.dials.referrers_end = "redirected", 404
        assert ask(filled.url, ask(filled.url, path).headers["location"]).status == 404
        filled.dials.referrers = "login"
        reply = ask(filled.url, path)
        assert reply.status == 302
        assert ask(filled.url, reply.headers["location"]).headers["content-type"].startswith("text/html")

    def test_redirects__lists_and_manifests_anywhere(self, filled: Upstream) -> None:
        filled.dials.redirect_tags = filled.dials.redirect_manifests = True
        path = "/v2/library/app/tags/list?n=1"
        assert ask(filled.url, path).headers["location"] == filled.cdn_url + path
        assert ask(filled.cdn_url, path).status == 200
        filled.dials.redirect_to = "http://169.254.169.254/"
        assert ask(filled.url, PATH).headers["location"] == "http://169.254.169.254/"

    def test_checksum__stands_beside_the_manifest(self, filled: Upstream) -> None:
        filled.dials.manifest_checksum = True
        headers = ask(filled.url, PATH, "HEAD").headers
        assert headers["docker-content-digest"] == f"sha256:{headers['x-checksum-sha256']}"
