"""`GET` and `HEAD /v2/<name>/blobs/<digest>`."""

from __future__ import annotations

import hashlib

import pytest

from tests.conformance.wire import Door, assert_error, assert_plain, exchange
from tests.upstream import Image, Upstream


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("colon", [":", "%3A", "%3a"])
def test_answers_a_blob__with_every_header(
    door: Door, upstream: Upstream, image: Image, method: str, colon: str
) -> None:
    for blob in (image.configs[0], image.layers[1]):
        answer = door.ask(method, f"/v2/{image.repository}/blobs/{blob.digest.replace(':', colon)}")
        assert answer.status == 200
        assert_plain(answer)
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.length == blob.size
        assert answer.headers["Docker-Content-Digest"] == blob.digest
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert answer.headers["ETag"] == f'"{blob.digest}"'
        assert answer.headers["Cache-Status"].startswith("layover; ")
        assert answer.body == (upstream.content(blob.digest) if method == "GET" else b"")


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("condition", ['"{}"', 'W/"{}"', '"other", "{}"', "*"])
def test_answers_304__if_none_match_names_it(door: Door, image: Image, method: str, condition: str) -> None:
    digest = image.layers[0].digest
    headers = {"If-None-Match": condition.format(digest)}
    answer = door.ask(method, f"/v2/{image.repository}/blobs/{digest}", headers)
    assert answer.status == 304
    assert answer.headers["ETag"] == f'"{digest}"'
    assert answer.body == b""


def test_never_encodes__gzip_accepted(door: Door, upstream: Upstream, pushed: Image) -> None:
    upstream.dials.blob_gzip = True
    digest = pushed.layers[0].digest
    for _ in ("cold", "warm"):
        answer = door.get(f"/v2/{pushed.repository}/blobs/{digest}", {"Accept-Encoding": "zstd, gzip, deflate"})
        assert_plain(answer)
        assert answer.body == upstream.content(digest)


@pytest.mark.parametrize("data", [b"", b"{}", bytes(range(256)) * 400])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_answers_a_blob__that_no_manifest_names(
    door: Door, upstream: Upstream, repository: str, data: bytes, algorithm: str
) -> None:
    digest = upstream.push_blob(repository, data, algorithm)
    for method in ("HEAD", "GET", "HEAD", "GET"):
        answer = door.ask(method, f"/v2/{repository}/blobs/{digest}")
        assert answer.status == 200
        assert answer.length == len(data)
        assert answer.headers["Docker-Content-Digest"] == digest
        assert answer.body == (data if method == "GET" else b"")


def test_answers_404__known_only_as_a_manifest(door: Door, image: Image) -> None:
    target = f"/v2/{image.repository}/blobs/{image.index.digest}"
    assert_error(door.get(target), 404, "BLOB_UNKNOWN")
    assert door.head(target).status == 404


def test_answers_404__unknown_digest(door: Door, image: Image) -> None:
    for digest in (f"sha256:{'0' * 64}", f"sha512:{'0' * 128}"):
        target = f"/v2/{image.repository}/blobs/{digest}"
        assert_error(door.get(target), 404, "BLOB_UNKNOWN")
        answer = door.head(target)
        assert answer.status == 404
        assert answer.body == b""


def test_answers_404__linked_to_another_repository_alone(door: Door, upstream: Upstream, image: Image) -> None:
    other = f"{image.repository}-other"
    upstream.push_blob(other, b"something else")
    assert_error(door.get(f"/v2/{other}/blobs/{image.layers[0].digest}"), 404, "BLOB_UNKNOWN")


def test_keeps_a_connection_in_step__over_many_answers(door: Door, upstream: Upstream, image: Image) -> None:
    blob, manifest = image.layers[1], image.index
    base = f"/v2/{image.repository}"
    connection = door.connect()
    try:
        for _ in range(2):
            assert exchange(connection, "HEAD", f"{base}/blobs/{blob.digest}").length == blob.size
            body = exchange(connection, "GET", f"{base}/blobs/{blob.digest}").body
            assert f"sha256:{hashlib.sha256(body).hexdigest()}" == blob.digest
            assert exchange(connection, "GET", f"{base}/blobs/sha256:{'0' * 64}").status == 404
            assert exchange(connection, "HEAD", f"{base}/manifests/nothing").status == 404
            assert exchange(connection, "GET", f"{base}/manifests/{manifest.digest}").body == upstream.content(
                manifest.digest
            )
            unchanged = {"If-None-Match": f'"{blob.digest}"'}
            assert exchange(connection, "GET", f"{base}/blobs/{blob.digest}", unchanged).status == 304
    finally:
        connection.close()
