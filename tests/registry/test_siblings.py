"""Requests that claim to be a sibling's, as they come over the wire: what is not genuine is told nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from mirror.fleet.signature import CHAIN, PROOF, SIGNATURE, Question, Signature, is_proven
from mirror.oci.digest import Digest
from tests.source.sibling.conftest import SECONDS, Bench, bench, registry, upstream
from tests.source.sibling.member import SECRET

__all__ = ["bench", "registry", "upstream"]
# What verifies is the door's, whatever lies between it and its hub.
pytestmark = pytest.mark.parametrize("bench", ["in process"], indirect=True)
_SIZE = 300_000
_REASONS = {"alone", "malformed", "forged", "redirected", "expired"}


class _Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The error's code."""
        return str(json.loads(self.body)["errors"][0]["code"])


async def _ask(bench: Bench, method: str, target: str, headers: Mapping[str, str]) -> _Answer:
    """Send a request, and return its answer."""
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
        lines = [f"{method} {target} HTTP/1.1", "Host: docker.io", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = await reader.read()
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    found = {name: value for name, _, value in (field.partition(": ") for field in fields)}
    return _Answer(int(status.split()[1]), found, body)


def _signature(bench: Bench, method: str, target: str, ranges: str = "", secret: str = SECRET) -> Signature:
    unsigned = Signature("a", "b", int(bench.member.time * 1000))
    return unsigned.signed(Question(method, target, ranges), secret)


def _target(bench: Bench, digest: str) -> str:
    return f"/v2/{bench.repository}/blobs/{digest}"


async def _assert_refused(bench: Bench, answer: _Answer, reason: str) -> None:
    assert (answer.status, answer.code) == (403, "DENIED")
    assert not {PROOF, CHAIN} & answer.headers.keys()
    assert bench.metric("layover_sibling_refused_total", reason=reason) == 1
    assert bench.metric("layover_sibling_refused_total") == 1
    assert bench.metric("layover_requests_total") == 0
    assert bench.upstream.counters.requests() == 0
    assert not bench.app.hub._blobs._active


@pytest.mark.parametrize("is_held", [True, False], ids=["held", "not held"])
@pytest.mark.parametrize("what", ["method", "target", "range", "secret", "mac", "followers", "epoch", "sender", "time"])
async def test_refuses__what_was_not_signed_so(bench: Bench, what: str, is_held: bool) -> None:
    digest = bench.push(_SIZE)
    if is_held:
        await bench.hold(digest)
        bench.upstream.counters.clear()
    target, headers = _target(bench, digest), {"Range": "bytes=0-9"}
    signature = _signature(bench, "GET", target, "bytes=0-9")
    method = "GET"
    if what == "method":
        method = "HEAD"
    elif what == "target":
        target += "?hold=1"
    elif what == "range":
        headers = {"Range": "bytes=0-10"}
    elif what == "secret":
        signature = _signature(bench, "GET", target, "bytes=0-9", "another")
    else:
        changes: dict[str, dict[str, Any]] = {
            "mac": {"mac": "0" * 64},
            "followers": {"followers": ("c",)},
            "epoch": {"epoch": 1},
            "sender": {"sender": "c"},
            "time": {"at": signature.at + 1},
        }
        signature = signature._replace(**changes[what])
    answer = await _ask(bench, method, target, {**headers, SIGNATURE: signature.header()})
    if method == "HEAD":
        answer = answer._replace(body=b'{"errors":[{"code":"DENIED"}]}')
    await _assert_refused(bench, answer, "forged")


@pytest.mark.parametrize("late", [31.0, -31.0, 3600.0])
async def test_refuses__what_is_not_of_this_time(bench: Bench, late: float) -> None:
    digest = bench.push(_SIZE)
    bench.member.late = late
    target = _target(bench, digest)
    answer = await _ask(bench, "GET", target, {SIGNATURE: _signature(bench, "GET", target).header()})
    await _assert_refused(bench, answer, "expired")


@pytest.mark.parametrize("late", [29.0, -29.0])
async def test_answers__what_is_nearly_of_this_time(bench: Bench, late: float) -> None:
    bench.member.late = late
    target = "/v2/?boot=boot-b"
    answer = await _ask(bench, "GET", target, {SIGNATURE: _signature(bench, "GET", target).header()})
    assert answer.status == 200


async def test_refuses__what_was_meant_for_another(bench: Bench) -> None:
    target = _target(bench, bench.push(_SIZE))
    signature = Signature("a", "c", int(bench.member.time * 1000)).signed(Question("GET", target, ""), SECRET)
    await _assert_refused(bench, await _ask(bench, "GET", target, {SIGNATURE: signature.header()}), "redirected")


@pytest.mark.parametrize(
    "value", ["", "x", "v=1; from=a; to=b", "v=2; from=a; to=b; at=1; epoch=0; for=; mac=" + "0" * 64]
)
async def test_refuses__what_is_no_signature(bench: Bench, value: str) -> None:
    target = _target(bench, bench.push(_SIZE))
    await _assert_refused(bench, await _ask(bench, "GET", target, {SIGNATURE: value}), "malformed")


async def test_refuses__two_signatures(bench: Bench) -> None:
    target = _target(bench, bench.push(_SIZE))
    header = _signature(bench, "GET", target).header()
    answer = await _ask(bench, "GET", target, {SIGNATURE: header, SIGNATURE.lower(): header})
    await _assert_refused(bench, answer, "malformed")


async def test_refuses__a_replica_without_a_fleet(bench: Bench) -> None:
    bench.membership = None
    target = _target(bench, bench.push(_SIZE))
    answer = await _ask(bench, "GET", target, {SIGNATURE: _signature(bench, "GET", target).header()})
    await _assert_refused(bench, answer, "alone")


async def test_refuses__an_empty_secret_opens_nothing(bench: Bench) -> None:
    assert bench.membership is not None
    bench.membership = type(bench.membership)("b", "boot-b", type(bench.membership.secret)(""), bench.membership.clock)
    target = _target(bench, bench.push(_SIZE))
    answer = await _ask(bench, "GET", target, {SIGNATURE: _signature(bench, "GET", target, "", "").header()})
    await _assert_refused(bench, answer, "alone")


async def test_counts__every_reason_from_the_start(bench: Bench) -> None:
    shown = {
        each.labels["reason"]
        for family in bench.registry.collect()
        if family.name == "layover_sibling_refused"
        for each in family.samples
    }
    assert shown == _REASONS


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/v2/", 404),
        ("GET", "/v2/?boot=other", 404),
        ("GET", "/v2/_catalog", 404),
        ("GET", "/v2/docker.io/library/app/tags/list", 404),
        ("GET", "/v2/docker.io/library/app/manifests/latest", 400),
        ("GET", "/v2/docker.io/library/app/blobs/sha256:0", 400),
        ("PUT", f"/v2/docker.io/library/app/blobs/{Digest.of(b'')}", 405),
        ("DELETE", f"/v2/docker.io/library/app/manifests/{Digest.of(b'')}", 405),
        ("HEAD", f"/v2/docker.io/library/app/manifests/{Digest.of(b'')}", 405),
        ("GET", f"/v2/blobs/{Digest.of(b'')}", 405),
        ("HEAD", f"/v2/blobs/{Digest.of(b'')}?hold=%zz", 404),
        ("GET", f"/v2/docker.io/library/app/blobs/{Digest.of(b'')}", 404),
    ],
)
async def test_answers__a_genuine_request_for_nothing__with_proof(
    bench: Bench, method: str, target: str, status: int
) -> None:
    signature = _signature(bench, method, target)
    answer = await _ask(bench, method, target, {SIGNATURE: signature.header()})
    assert answer.status == status
    assert is_proven(answer.headers[PROOF], signature, SECRET, None)
    assert bench.upstream.counters.requests() == 0
    assert bench.metric("layover_sibling_refused_total") == 0


async def test_answers__a_request_that_is_sent_again__alike(bench: Bench) -> None:
    """Within its 30 s a signature may be used again: all that siblings ask for is reading."""
    digest = bench.push(_SIZE)
    await bench.hold(digest)
    target = _target(bench, digest)
    signature = _signature(bench, "GET", target)
    for _ in range(2):
        answer = await _ask(bench, "GET", target, {SIGNATURE: signature.header()})
        assert (answer.status, Digest.of(answer.body)) == (200, digest)
        assert is_proven(answer.headers[PROOF], signature, SECRET, None)


async def test_answers__a_client__without_a_word_about_siblings(bench: Bench) -> None:
    digest = bench.push(_SIZE)
    answer = await _ask(bench, "GET", f"/v2/{bench.repository.name}/blobs/{digest}", {})
    assert (answer.status, Digest.of(answer.body)) == (200, digest)
    assert not {PROOF, CHAIN, SIGNATURE} & answer.headers.keys()
    assert bench.metric("layover_requests_total") == 1
