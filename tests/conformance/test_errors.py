"""What is refused, in which words, and at what cost: none."""

from __future__ import annotations

import pytest

from tests.conformance.forms import FAILING
from tests.conformance.wire import Door, assert_error
from tests.upstream import Failure, Upstream

DIGEST = f"sha256:{'0' * 64}"
ENDPOINTS = ("manifests/1.0", f"manifests/{DIGEST}", f"blobs/{DIGEST}", "tags/list", f"referrers/{DIGEST}")
NAMES = (
    "UPPER",
    "a/UPPER",
    "-a",
    "a-",
    "a..b",
    "a/-b",
    "a___b",
    "a/../b",
    "a%20b",
    "%C3%A9",
    "a%2F..%2Fb",
    "a//b",
    ".",
)
ANY_CODE = ("NAME_INVALID", "NAME_UNKNOWN", "UNSUPPORTED", "MANIFEST_INVALID", "DIGEST_INVALID")


@pytest.mark.parametrize("name", NAMES)
def test_refuses_a_name__against_the_grammar(door: Door, upstream: Upstream, name: str) -> None:
    for endpoint in ENDPOINTS:
        assert_error(door.get(f"/v2/{name}/{endpoint}"), 400, "NAME_INVALID")
        assert_error(door.get(f"/v2/docker.io/{name}/{endpoint}"), 400, "NAME_INVALID")
        assert door.head(f"/v2/{name}/{endpoint}").status == 400
    assert upstream.counters.headers == []


def test_refuses_a_name__longer_than_255(door: Door, upstream: Upstream) -> None:
    longest = "/".join(["a" * 63] * 4)
    assert len(longest) == 255
    for endpoint in ENDPOINTS:
        assert_error(door.get(f"/v2/{longest}a/{endpoint}"), 400, "NAME_INVALID")
    assert upstream.counters.headers == []
    assert door.get(f"/v2/{longest}/manifests/1.0").status == 404
    assert upstream.counters.requests(repository=longest) > 0


@pytest.mark.parametrize("tag", ["-a", ".a", "a%20b", "a" * 129, "%C3%A9", "a@b", "a%00"])
def test_refuses_a_tag__against_the_grammar(door: Door, upstream: Upstream, repository: str, tag: str) -> None:
    assert_error(door.get(f"/v2/{repository}/manifests/{tag}"), 400, "MANIFEST_INVALID")
    assert upstream.counters.headers == []


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:bad",
        f"sha256:{'A' * 64}",
        f"sha256:{'0' * 63}",
        f"sha256:{'0' * 65}",
        f"sha512:{'0' * 64}",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        ":",
        "sha256:",
        f"sha256:{'0' * 64}:",
    ],
)
def test_refuses_a_digest__against_the_grammar(door: Door, upstream: Upstream, repository: str, digest: str) -> None:
    for endpoint in ("manifests", "blobs", "referrers"):
        assert_error(door.get(f"/v2/{repository}/{endpoint}/{digest}"), 400, "DIGEST_INVALID")
    assert upstream.counters.headers == []


def test_refuses_a_tag__where_a_digest_belongs(door: Door, upstream: Upstream, repository: str) -> None:
    assert_error(door.get(f"/v2/{repository}/blobs/latest"), 400, "DIGEST_INVALID")
    assert upstream.counters.headers == []


@pytest.mark.parametrize(
    "target", ["/", "/v1/", "/v2/library/alpine", "/v2/library/alpine/unknown/1.0", "/favicon.ico"]
)
def test_answers_by_the_specification__no_such_endpoint(door: Door, upstream: Upstream, target: str) -> None:
    answer = door.get(target)
    assert answer.status in (400, 404)
    assert_error(answer, answer.status, *ANY_CODE)
    assert upstream.counters.headers == []


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "BREW"])
def test_refuses_a_push(door: Door, upstream: Upstream, repository: str, method: str) -> None:
    for endpoint in (*ENDPOINTS, "blobs/uploads/", "blobs/uploads/some-session"):
        for target in (f"/v2/{repository}/{endpoint}", f"/v2/docker.io/{repository}/{endpoint}?ns=docker.io"):
            answer = door.ask(method, target, {"Content-Length": "0"})
            assert_error(answer, 405, "UNSUPPORTED")
            assert answer.headers["Allow"] == "GET, HEAD"
    assert upstream.counters.headers == []


def test_refuses_a_push__without_reading_its_body(door: Door, upstream: Upstream, repository: str) -> None:
    request = f"POST /v2/{repository}/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
    assert_error(door.send(request.encode()), 405, "UNSUPPORTED")


@pytest.mark.parametrize("length", [9_000, 20_000, 100_000])
def test_refuses_a_path__far_too_long(door: Door, upstream: Upstream, length: int) -> None:
    for target in (f"/v2/{'a' * length}/manifests/1.0", f"/v2/{'a/' * (length // 2)}b/tags/list"):
        answer = door.get(target)
        assert answer.status in (400, 414, 431)
        assert_error(answer, answer.status, "NAME_INVALID")
    answer = door.get(f"/v2/library/alpine/manifests/{'a' * length}")
    assert answer.status in (400, 414, 431)
    assert_error(answer, answer.status, "MANIFEST_INVALID", "NAME_INVALID")
    assert upstream.counters.headers == []


@pytest.mark.parametrize("length", [70_000, 300_000])
def test_refuses_a_header__far_too_long(door: Door, upstream: Upstream, repository: str, length: int) -> None:
    request = f"GET /v2/{repository}/manifests/1.0 HTTP/1.1\r\nHost: x\r\nX-Filler: {'a' * length}\r\n\r\n"
    answer = door.send(request.encode())
    assert answer.status in (400, 431)
    assert_error(answer, answer.status, "UNSUPPORTED", "NAME_INVALID")
    assert upstream.counters.headers == []


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /v2/ HTTP/x\r\n\r\n",
        b"GET /v2/\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nBad Header\r\n\r\n",
    ],
)
def test_answers_by_the_specification__not_even_http(door: Door, request_: bytes) -> None:
    assert_error(door.send(request_), 400, "UNSUPPORTED", "NAME_INVALID")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("name", "how"), [("refused.example", "refused"), ("nameless.example", "dns")])
def test_answers_503__upstream_cannot_be_reached(door: Door, repository: str, name: str, how: str, method: str) -> None:
    for endpoint in ENDPOINTS:
        answer = door.ask(method, f"/v2/{name}/{repository}/{endpoint}")
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) >= 1
        if method == "GET":
            assert_error(answer, 503, "UNAVAILABLE")
            message = answer.document["errors"][0]["message"]
            assert name in message
            assert how in message.lower()


@pytest.mark.parametrize(
    ("name", "failure", "status", "code"),
    [
        (FAILING[0], Failure(429, retry_after="7"), 429, "TOOMANYREQUESTS"),
        (FAILING[1], Failure(429, body="html"), 429, "TOOMANYREQUESTS"),
        (FAILING[2], Failure(403, code="DENIED"), 403, "DENIED"),
        (FAILING[3], Failure(500, body="html"), 503, "UNAVAILABLE"),
        (FAILING[4], Failure(503), 503, "UNAVAILABLE"),
    ],
)
def test_keeps_an_upstreams_failures_apart(
    door: Door, upstream: Upstream, repository: str, name: str, failure: Failure, status: int, code: str
) -> None:
    upstream.dials.failures.append(failure)
    for endpoint in ("manifests/1.0", f"blobs/{DIGEST}"):
        answer = door.get(f"/v2/{name}/{repository}/{endpoint}")
        assert_error(answer, status, code)
        assert ("Retry-After" in answer.headers) == (status in (429, 503))


def test_hides_an_upstreams_challenge(door: Door, upstream: Upstream, repository: str) -> None:
    upstream.dials.failures.append(Failure(401, headers={"WWW-Authenticate": 'Basic realm="x"'}))
    answer = door.get(f"/v2/{FAILING[5]}/{repository}/manifests/1.0")
    assert_error(answer, 403, "DENIED")
    assert "WWW-Authenticate" not in answer.headers
