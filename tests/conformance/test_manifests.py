"""`GET` and `HEAD /v2/<name>/manifests/<reference>`."""

from __future__ import annotations

import json
import re

import pytest

from tests.conformance.forms import Form, forms
from tests.conformance.wire import Door, assert_error, assert_plain, exchange
from tests.upstream import Image, Upstream

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SHAPES = {
    OCI_MANIFEST: b'{ "schemaVersion":2,\n\t"layers": [] , "note":"\xc3\xa9 \\u00e9"}\n',
    "application/vnd.oci.image.index.v1+json": b'{"schemaVersion":2,"manifests":[]}',
    "application/vnd.oci.artifact.manifest.v1+json": b'{"artifactType":"application/example","blobs":[]}',
    "application/vnd.docker.distribution.manifest.v2+json": b'{"schemaVersion":2,"layers":[]}  ',
    "application/vnd.docker.distribution.manifest.list.v2+json": b'{"schemaVersion":2,"manifests":[],"x":1.50}',
    "application/vnd.docker.distribution.manifest.v1+json": b'{"schemaVersion":1,"fsLayers":[],"history":[]}',
}


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("by", ["tag", "digest", "encoded digest"])
def test_answers_a_manifest__with_every_header(
    door: Door, upstream: Upstream, image: Image, method: str, by: str
) -> None:
    digest = image.index.digest
    reference = {"tag": image.tag, "digest": digest, "encoded digest": digest.replace(":", "%3A")}[by]
    answer = door.ask(method, f"/v2/{image.repository}/manifests/{reference}")
    assert answer.status == 200
    assert_plain(answer)
    assert answer.headers["Content-Type"] == image.index.media_type
    assert answer.length == image.index.size
    assert answer.headers["Docker-Content-Digest"] == digest
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["ETag"] == f'"{digest}"'
    assert answer.headers["Cache-Status"].startswith("layover; ")
    assert "OCI-Namespace" not in answer.headers
    assert answer.body == (upstream.content(digest) if method == "GET" else b"")


def test_says_how_old_a_tag_is__warm(door: Door, pushed: Image) -> None:
    target = f"/v2/{pushed.repository}/manifests/{pushed.tag}"
    assert door.get(target).headers["Cache-Status"].startswith("layover; fwd=miss")
    answer = door.get(target)
    assert answer.headers["Cache-Status"].startswith("layover; hit; ttl=")
    assert answer.headers["Age"].isdecimal()


def test_asks_the_upstream_nothing__warm(door: Door, upstream: Upstream, pushed: Image) -> None:
    door.pull(pushed)
    upstream.counters.clear()
    door.pull(pushed)
    assert upstream.counters.headers == []


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("form", forms("docker.io").values(), ids=forms("docker.io"))
def test_answers_the_same__asked_again_in_the_same_bytes(
    door: Door, upstream: Upstream, pushed: Image, method: str, form: Form
) -> None:
    door.pull(pushed)
    upstream.counters.clear()
    connection = door.connect()
    for reference in (pushed.tag, pushed.index.digest):
        target = form.target(f"{pushed.repository}/manifests/{reference}")
        answers = [exchange(connection, method, target, form.headers) for _ in range(4)]
        heads = [dict(answer.headers) for answer in answers]
        for head in heads:
            assert re.fullmatch(r"layover; hit(; ttl=\d+)?", head.pop("Cache-Status"))
            assert head.pop("Date")
            head.pop("Age", None)
        assert heads[1:] == heads[:-1]
        assert {answer.body for answer in answers} == {
            upstream.content(pushed.index.digest) if method == "GET" else b""
        }
    connection.close()
    assert upstream.counters.headers == []


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("condition", ['"{}"', 'W/"{}"', '"other", "{}"', "*"])
def test_answers_304__if_none_match_names_it(door: Door, image: Image, method: str, condition: str) -> None:
    digest = image.index.digest
    for reference in (image.tag, digest):
        answer = door.ask(
            method, f"/v2/{image.repository}/manifests/{reference}", {"If-None-Match": condition.format(digest)}
        )
        assert answer.status == 304
        assert answer.headers["ETag"] == f'"{digest}"'
        assert answer.body == b""


def test_answers_in_full__if_none_match_names_another(door: Door, image: Image) -> None:
    other = image.manifests[0].digest
    answer = door.get(f"/v2/{image.repository}/manifests/{image.tag}", {"If-None-Match": f'"{other}"'})
    assert answer.status == 200
    assert len(answer.body) == image.index.size


@pytest.mark.parametrize("media_type", SHAPES)
def test_keeps_bytes_and_type__whatever_they_are(
    door: Door, upstream: Upstream, repository: str, media_type: str
) -> None:
    body = SHAPES[media_type]
    digest = upstream.push_manifest(repository, "1.0", body, media_type)
    for reference in ("1.0", digest, "1.0", digest):
        for method in ("HEAD", "GET"):
            answer = door.ask(method, f"/v2/{repository}/manifests/{reference}")
            assert answer.status == 200
            assert answer.headers["Content-Type"] == media_type
            assert answer.length == len(body)
            assert answer.headers["Docker-Content-Digest"] == digest
            assert answer.body == (body if method == "GET" else b"")


@pytest.mark.parametrize(
    "headers",
    [
        [("Accept", "application/json")],
        [("Accept", OCI_MANIFEST), ("Accept", "application/vnd.docker.distribution.manifest.v2+json")],
        [("Accept", "*/*"), ("Accept-Encoding", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5")],
    ],
)
def test_answers_the_same__whatever_is_accepted(door: Door, image: Image, headers: list[tuple[str, str]]) -> None:
    for reference in (image.tag, image.index.digest):
        answer = door.get(f"/v2/{image.repository}/manifests/{reference}", headers)
        assert answer.status == 200
        assert_plain(answer)
        assert answer.headers["Docker-Content-Digest"] == image.index.digest
        assert answer.headers["Content-Type"] == image.index.media_type


def test_answers_by_digest__no_tag_known(door: Door, upstream: Upstream, repository: str) -> None:
    body = b'{"schemaVersion":2,"layers":[]}'
    digest = upstream.push_manifest(repository, "sha256:", body, OCI_MANIFEST)
    for method in ("HEAD", "GET", "HEAD", "GET"):
        answer = door.ask(method, f"/v2/{repository}/manifests/{digest}")
        assert answer.status == 200
        assert answer.headers["Docker-Content-Digest"] == digest
        assert answer.body == (body if method == "GET" else b"")


def test_answers_by_sha512(door: Door, upstream: Upstream, repository: str) -> None:
    body = b'{"schemaVersion":2,"layers":[],"annotations":{"algorithm":"sha512"}}'
    digest = upstream.push_manifest(repository, "sha512:", body, OCI_MANIFEST)
    for method in ("HEAD", "GET", "HEAD", "GET"):
        answer = door.ask(method, f"/v2/{repository}/manifests/{digest}")
        assert answer.status == 200
        assert answer.headers["Docker-Content-Digest"] == digest
        assert answer.headers["ETag"] == f'"{digest}"'
        assert answer.length == len(body)


def test_keeps_a_large_manifest(door: Door, upstream: Upstream, repository: str) -> None:
    annotations = {f"annotation-{number}": "A" * 10_000 for number in range(390)}
    body = json.dumps({"schemaVersion": 2, "layers": [], "annotations": annotations}).encode()
    digest = upstream.push_manifest(repository, "large", body, OCI_MANIFEST)
    for reference in ("large", digest):
        assert door.get(f"/v2/{repository}/manifests/{reference}").body == body


@pytest.mark.parametrize("reference", ["nothing", f"sha256:{'0' * 64}", f"sha512:{'0' * 128}"])
def test_answers_404__unknown_reference(door: Door, image: Image, reference: str) -> None:
    target = f"/v2/{image.repository}/manifests/{reference}"
    assert_error(door.get(target), 404, "MANIFEST_UNKNOWN")
    answer = door.head(target)
    assert answer.status == 404
    assert answer.body == b""


def test_answers_404__unknown_repository(door: Door, upstream: Upstream, repository: str) -> None:
    assert_error(door.get(f"/v2/{repository}/manifests/1.0"), 404, "MANIFEST_UNKNOWN", "NAME_UNKNOWN")
