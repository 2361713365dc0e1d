"""The test registry is one: real programs push and pull, and what it counts is exact."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import ssl
import subprocess
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.programs import require
from tests.upstream import Upstream, UpstreamProcess
from tests.upstream.exchange import ask, dial

MIB = 2**20


class TestContent:
    def test_pushes_an_image__same_seed_same_digest(self, upstream: Upstream) -> None:
        one = upstream.push_image("a/one", "1", seed=7)
        two = upstream.push_image("b/two", "1", seed=7)
        other = upstream.push_image("b/two", "2", seed=8)
        assert one.index == two.index
        assert not {blob.digest for blob in one.blobs} & {blob.digest for blob in other.blobs}

    def test_pushes_an_image__layers_are_archives_of_about_the_size(self, upstream: Upstream) -> None:
        image = upstream.push_image("library/app", "1", layers=(30_000, MIB))
        part = image.platform("linux/arm64")
        config = json.loads(upstream.content(part.config.digest))
        for layer, asked, diff_id in zip(part.layers, (30_000, MIB), config["rootfs"]["diff_ids"], strict=True):
            content = upstream.content(layer.digest)
            plain = gzip.decompress(content)
            assert len(content) == layer.size == pytest.approx(asked, rel=0.02)
            assert diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
            with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
                assert len(archive.getmembers()) == 1
        assert image.size == sum(len(upstream.content(blob.digest)) for blob in image.blobs)

    def test_pushes_a_raw_image__sizes_are_exact(self, upstream: Upstream) -> None:
        image = upstream.push_image("library/app", "1", layers=(12_345,), raw=True)
        assert [layer.size for layer in image.layers] == [12_345, 12_345]

    def test_serves_sha512(self, upstream: Upstream) -> None:
        digest = upstream.push_blob("library/app", b"content", algorithm="sha512")
        assert digest == f"sha512:{hashlib.sha512(b'content').hexdigest()}"
        assert ask(upstream.url, f"/v2/library/app/blobs/{digest}").body == b"content"


class TestCounters:
    def test_counts_requests__by_each_filter(self, upstream: Upstream) -> None:
        image = upstream.push_image("library/app", "1")
        ask(upstream.url, "/v2/library/app/manifests/1", "HEAD")
        ask(upstream.url, f"/v2/library/app/manifests/{image.index.digest}")
        ask(upstream.url, f"/v2/library/app/blobs/{image.configs[0].digest}", X_Probe="7")
        counters = upstream.counters
        assert counters.requests() == 3
        assert counters.requests(kind="manifest") == 2
        assert counters.requests("HEAD", kind="manifest") == 1
        assert counters.requests(digest=image.index.digest) == 1
        assert counters.requests(repository="library/other") == 0
        assert counters.headers[-1].headers["X-Probe"] == "7"
        counters.clear()
        assert counters.requests() == 0

    def test_counts_bytes__each_answer_its_range(self, upstream: Upstream) -> None:
        digest = upstream.push_random_blob("library/app", 3 * MIB, seed=1)
        path = f"/v2/library/app/blobs/{digest}"
        content = upstream.content(digest)
        assert ask(upstream.url, path).body == content
        reply = ask(upstream.url, path, Range="bytes=100-199")
        assert (reply.status, reply.body) == (206, content[100:200])
        assert reply.headers["content-range"] == f"bytes 100-199/{3 * MIB}"
        assert ask(upstream.url, path, Range="bytes=-50").body == content[-50:]
        assert ask(upstream.url, path, Range=f"bytes={3 * MIB}-").status == 416
        ask(upstream.url, path, "HEAD")
        assert upstream.counters.spans(digest) == [(0, 3 * MIB), (100, 200), (3 * MIB - 50, 3 * MIB)]
        assert upstream.counters.sent(digest) == 3 * MIB + 150
        assert upstream.counters.overlaps(digest) == 150

    def test_counts_what_the_kernel_took__client_leaves(self, upstream: Upstream) -> None:
        digest = upstream.push_random_blob("library/app", 64 * MIB, seed=1)
        with dial(upstream.url) as connection:
            connection.sendall(f"GET /v2/library/app/blobs/{digest} HTTP/1.1\r\nHost: upstream\r\n\r\n".encode())
            received = 0
            while received < MIB:
                received += len(connection.recv(2**16))
        sent = upstream.counters.sent(digest)
        assert MIB / 2 < sent < 16 * MIB
        start = upstream.counters.spans(digest)[0].end
        assert ask(upstream.url, f"/v2/library/app/blobs/{digest}", Range=f"bytes={start}-").status == 206
        assert upstream.counters.overlaps(digest) == 0
        assert upstream.counters.sent(digest) == 64 * MIB

    def test_counts_overlap__two_open_answers_owe_the_same_bytes(self, upstream: Upstream) -> None:
        digest = upstream.push_random_blob("library/app", 8 * MIB, seed=1)
        upstream.dials.blob_stall = MIB
        with dial(upstream.url) as connection:
            connection.sendall(f"GET /v2/library/app/blobs/{digest} HTTP/1.1\r\nHost: upstream\r\n\r\n".encode())
            while upstream.counters.sent(digest) < MIB:
                connection.recv(2**16)
            ask(upstream.url, f"/v2/library/app/blobs/{digest}", Range=f"bytes={2 * MIB}-{3 * MIB - 1}")
            assert upstream.counters.spans(digest) == [(0, MIB), (2 * MIB, 3 * MIB)]
            assert upstream.counters.overlaps(digest) == MIB


class TestPrograms:
    def run(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def test_crane_pushes_and_pulls(self, upstream: Upstream, tmp_path: Path) -> None:
        crane = require("crane")
        image = upstream.push_image("library/app", "1")
        source, target = f"{upstream.address}/library/app:1", f"{upstream.address}/pushed/app:1"
        self.run(crane, "pull", "--format=oci", source, str(tmp_path / "layout"))
        self.run(crane, "push", "--index", str(tmp_path / "layout"), target)
        self.run(crane, "validate", "--remote", target)
        pushed = ask(upstream.url, "/v2/pushed/app/manifests/1").body
        assert image.index.digest.encode() in pushed

    def test_skopeo_pushes_and_pulls(self, upstream: Upstream, tmp_path: Path) -> None:
        skopeo = require("skopeo")
        image = upstream.push_image("library/app", "1")
        source, target = f"docker://{upstream.address}/library/app:1", f"docker://{upstream.address}/pushed/app:1"
        policy = tmp_path / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        copy = (skopeo, "--policy", str(policy), "copy", "--all", "--preserve-digests")
        self.run(*copy, "--src-tls-verify=false", source, f"oci:{tmp_path / 'layout'}:1")
        self.run(*copy, "--dest-tls-verify=false", f"oci:{tmp_path / 'layout'}:1", target)
        reply = ask(upstream.url, "/v2/pushed/app/manifests/1", "HEAD")
        assert reply.headers["docker-content-digest"] == image.index.digest

    def test_crane_pulls__through_tokens_and_redirects(self, upstream: Upstream) -> None:
        crane = require("crane")
        upstream.push_image("library/app", "1")
        upstream.dials.auth, upstream.dials.redirect = "bearer", True
        self.run(crane, "validate", "--remote", f"{upstream.address}/library/app:1")
        assert upstream.counters.requests(kind="token") >= 1
        assert upstream.counters.requests(kind="cdn") >= 2


class TestTls:
    def test_serves__counted_and_cut(self, tmp_path: Path) -> None:
        certificate = tmp_path / "certificate.pem"
        request = ("req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=upstream", "-days", "1")
        names = ("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", certificate, "-out", tmp_path / "public.pem")
        subprocess.run((require("openssl"), *request, *names), check=True, capture_output=True, timeout=60)
        with certificate.open("ab") as file:
            file.write((tmp_path / "public.pem").read_bytes())
        trust = ssl.create_default_context(cafile=tmp_path / "public.pem")
        with Upstream(certificate=certificate) as upstream:
            digest = upstream.push_random_blob("library/app", 3 * MIB)
            url = f"{upstream.url}/v2/library/app/blobs/{digest}"
            upstream.dials.redirect = True
            with urllib.request.urlopen(url, context=trust) as answer:
                assert answer.url.startswith("https")
                assert answer.read() == upstream.content(digest)
            upstream.dials.blob_cut = MIB
            with urllib.request.urlopen(url, context=trust) as answer, pytest.raises(http.client.IncompleteRead) as cut:
                answer.read()
            assert len(cut.value.partial) == MIB
            assert upstream.counters.spans(digest) == [(0, 3 * MIB), (0, MIB)]


class TestProcess:
    def test_is_steered_over_its_control_port(self) -> None:
        with UpstreamProcess() as upstream:
            image = upstream.push_image("library/app", "1", layers=(100_000,))
            layer = image.layers[0]
            upstream.dial(blob_cut=50_000, failures=[{"status": 503, "kind": "manifest"}])
            assert ask(upstream.url, "/v2/library/app/manifests/1").status == 503
            assert len(ask(upstream.url, f"/v2/library/app/blobs/{layer.digest}").body) == 50_000
            assert upstream.sent(layer.digest) == 50_000
            assert upstream.spans(layer.digest) == [(0, 50_000)]
            assert upstream.requests(kind="manifest", method="GET") == 1
            upstream.pause()
            with pytest.raises(ConnectionRefusedError):
                dial(upstream.url)
            upstream.resume()
            upstream.reset()
            assert ask(upstream.url, "/v2/library/app/manifests/1").status == 200
            with pytest.raises(urllib.error.HTTPError, match="400"):
                upstream.dial(no_such_dial=1)
