"""What each way to fail becomes: 404, 403, 429 and unreachable stay different, and nothing else ever comes out."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror import config
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Tag
from mirror.source.upstream import failures
from tests import upstream as bed
from tests.replica import free_port
from tests.source.conftest import APP, HOST, Source, asking
from tests.upstream import Upstream

UPSTREAM = config.Upstream(HOST, HOST, f"https://{HOST}")
ODD_BODIES = [
    b"",
    b"null",
    b"[]",
    b"<html>",
    b'{"code": "404"}',
    b'{"errors": null}',
    b'{"errors": []}',
    b'{"errors": [null]}',
    b'{"errors": [{"code": 5}]}',
    b'{"errors": [{"code": "\xff"}]}',
    b'{"errors": [{"code": "DENIED", "detail": ' + b"[" * 10_000,
    b"[" * 10_000,
    b"\x00\xff",
]


TAG = Tag("1")


async def refusal(source: Source) -> RegistryError:
    """Fetch what cannot be had, and return the error."""
    with pytest.raises(RegistryError) as refused:
        await source.manifests.fetch(source.upstream, APP, TAG)
    return refused.value


class TestAnswers:
    @pytest.mark.parametrize("body", ["json", "plain", "html", "code", "empty"])
    @pytest.mark.parametrize(
        ("status", "code", "failure"),
        [
            (404, ErrorCode.MANIFEST_UNKNOWN, None),
            (429, ErrorCode.TOOMANYREQUESTS, Failure.TOO_MANY),
            (400, ErrorCode.UNAVAILABLE, Failure.SERVER),
            (405, ErrorCode.UNAVAILABLE, Failure.SERVER),
        ],
    )
    async def test_keep_their_meaning__in_every_shape(
        self, body: str, status: int, code: ErrorCode, failure: Failure | None, upstream: Upstream, source: Source
    ) -> None:
        upstream.dials.failures.append(bed.Failure(status, kind="manifest", body=body))  # type: ignore[arg-type]
        error = await refusal(source)
        assert (error.code, error.failure) == (code, failure)
        assert HOST in error.message

    @pytest.mark.parametrize("code", ["NAME_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN"])
    async def test_keep_the_code__of_a_404(self, code: str, upstream: Upstream, source: Source) -> None:
        upstream.dials.failures.append(bed.Failure(404, kind="manifest", code=code))
        assert (await refusal(source)).code == code

    @pytest.mark.parametrize("code", ["TAG_EXPIRED", "UNAUTHORIZED", "DENIED", "UNAVAILABLE", "", "x" * 5000])
    async def test_are_a_404__under_any_other_code(self, code: str, upstream: Upstream, source: Source) -> None:
        upstream.dials.failures.append(bed.Failure(404, kind="manifest", code=code))
        error = await refusal(source)
        assert (error.status, error.code, error.failure) == (404, ErrorCode.MANIFEST_UNKNOWN, None)

    async def test_deny_the_image__by_the_registry_s_own_word(self, upstream: Upstream, source: Source) -> None:
        upstream.dials.failures.append(bed.Failure(403, kind="manifest", code="DENIED"))
        error = await refusal(source)
        assert (error.code, error.failure) == (ErrorCode.DENIED, None)

    @pytest.mark.parametrize("body", ["plain", "html", "code", "empty"])
    async def test_deny_the_mirror__by_any_other_403(self, body: str, upstream: Upstream, source: Source) -> None:
        upstream.dials.failures.append(bed.Failure(403, kind="manifest", body=body))  # type: ignore[arg-type]
        error = await refusal(source)
        assert (error.code, error.failure) == (ErrorCode.DENIED, Failure.CREDENTIALS)

    @pytest.mark.parametrize("body", ODD_BODIES, ids=range(len(ODD_BODIES)))
    @pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
    def test_never_raise__whatever_they_hold(self, status: int, body: bytes) -> None:
        error = failures.refusal(UPSTREAM, status, {}, body, ErrorCode.BLOB_UNKNOWN)
        expected = {
            401: ErrorCode.DENIED,
            403: ErrorCode.DENIED,
            404: ErrorCode.BLOB_UNKNOWN,
            429: ErrorCode.TOOMANYREQUESTS,
        }
        assert error.code is expected.get(status, ErrorCode.UNAVAILABLE)

    async def test_are_refused__in_a_coding_that_nobody_asked_for(self, upstream: Upstream, source: Source) -> None:
        headers = {"Content-Encoding": "gzip"}
        upstream.dials.failures.append(bed.Failure(200, kind="manifest", body="plain", headers=headers))
        error = await refusal(source)
        assert (error.code, error.failure) == (ErrorCode.UNAVAILABLE, Failure.SERVER)


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("7", 7), ("0", 0), (" 30 ", 30), ("3600", 3600), ("99999", 3600), ("9" * 5000, 3600)],
        ids=["7", "0", "spaces", "an hour", "too long", "absurd"],
    )
    def test_is_read__in_seconds(self, text: str, seconds: int) -> None:
        assert failures.retry_after({"Retry-After": text}) == seconds

    def test_is_read__as_a_date(self) -> None:
        soon = failures.retry_after({"Retry-After": formatdate(time.time() + 100, usegmt=True)})
        assert soon is not None
        assert 90 <= soon <= 101
        assert failures.retry_after({"Retry-After": formatdate(0, usegmt=True)}) == 0
        assert failures.retry_after({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}) == 3600

    @settings(deadline=None)
    @given(st.text() | st.from_regex(r"\w{3}, \d{1,3} \w{3} \d{1,5} \d\d:\d\d:\d\d [A-Z+-]{1,3}\d{0,6}"))
    def test_is_none_or_within_an_hour__whatever_it_says(self, text: str) -> None:
        found = failures.retry_after({"Retry-After": text})
        assert found is None or 0 <= found <= 3600

    @pytest.mark.parametrize(
        ("sent", "told"), [("60", 60), (None, failures.RETRY_AFTER), ("soon", failures.RETRY_AFTER)]
    )
    async def test_is_passed_on__with_429(
        self, sent: str | None, told: int, upstream: Upstream, source: Source
    ) -> None:
        upstream.dials.failures.append(bed.Failure(429, kind="manifest", retry_after=sent))
        assert (await refusal(source)).retry_after == told


class TestRetries:
    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    async def test_help__against_a_passing_failure(self, status: int, upstream: Upstream, source: Source) -> None:
        upstream.push_image(APP.name, TAG, layers=(1_000,))
        upstream.dials.failures.append(bed.Failure(status, kind="manifest", times=2))
        await source.manifests.fetch(source.upstream, APP, TAG)
        assert upstream.counters.requests(kind="manifest") == 3
        assert source.counted("layover_upstream_retries_total", reason="5xx") == 2

    async def test_help__against_a_connection_that_broke(self, upstream: Upstream, source: Source) -> None:
        upstream.push_image(APP.name, TAG, layers=(1_000,))
        upstream.dials.hang_up, upstream.dials.hang_up_times = {"manifest"}, 2
        await source.manifests.fetch(source.upstream, APP, TAG)

    async def test_end__after_a_few(self, upstream: Upstream, source: Source) -> None:
        upstream.dials.failures.append(bed.Failure(503, kind="manifest"))
        error = await refusal(source)
        assert (error.code, error.failure, error.retry_after) == (ErrorCode.UNAVAILABLE, Failure.SERVER, 10)
        assert upstream.counters.requests(kind="manifest") == 3

    async def test_wait__as_long_as_a_short_limit_lasts(self, upstream: Upstream, source: Source) -> None:
        upstream.push_image(APP.name, TAG, layers=(1_000,))
        upstream.dials.failures.append(bed.Failure(429, kind="manifest", times=1, retry_after="1"))
        began = time.monotonic()
        await source.manifests.fetch(source.upstream, APP, TAG)
        assert time.monotonic() - began >= 1
        assert source.counted("layover_upstream_retries_total", reason="429") == 1

    @pytest.mark.parametrize("status", [401, 403, 404])
    async def test_are_not_made__against_a_word(self, status: int, upstream: Upstream, source: Source) -> None:
        upstream.dials.failures.append(bed.Failure(status, kind="manifest", body="plain"))
        await refusal(source)
        assert upstream.counters.requests(kind="manifest") == 1

    async def test_are_not_made__against_a_long_limit(self, upstream: Upstream, source: Source) -> None:
        upstream.dials.failures.append(bed.Failure(429, kind="manifest", retry_after="60"))
        await refusal(source)
        assert upstream.counters.requests(kind="manifest") == 1


class TestConnections:
    async def test_that_are_refused(self, upstream: Upstream, source: Source) -> None:
        upstream.pause()
        error = await refusal(source)
        assert (error.code, error.failure, error.retry_after) == (ErrorCode.UNAVAILABLE, Failure.REFUSED, 10)
        assert error.message == f"upstream {HOST} at {upstream.address} refused the connection"
        assert source.counted("layover_upstream_requests_total", kind="manifest", method="GET", status="refused") == 3

    async def test_that_break(self, upstream: Upstream, source: Source) -> None:
        upstream.dials.hang_up = {"*"}
        error = await refusal(source)
        assert (error.code, error.failure) == (ErrorCode.UNAVAILABLE, Failure.RESET)
        assert "broke the connection" in error.message

    async def test_to_no_such_host(self) -> None:
        async with asking("http://nowhere.invalid") as source:
            error = await refusal(source)
        assert (error.code, error.failure) == (ErrorCode.UNAVAILABLE, Failure.DNS)
        assert error.message == f"upstream {HOST} at nowhere.invalid:80 could not be found (DNS)"
        assert source.counted("layover_upstream_requests_total", kind="manifest", method="GET", status="dns") == 1

    async def test_to_something_that_speaks_no_http(self) -> None:
        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            writer.close()

        port = free_port()
        async with await asyncio.start_server(answer, "127.0.0.1", port), asking(f"http://127.0.0.1:{port}") as source:
            error = await refusal(source)
        assert (error.code, error.failure) == (ErrorCode.UNAVAILABLE, Failure.RESET)

    async def test_that_are_silent(self, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mirror.source.upstream.connections.READ_SECONDS", 0.2)
        upstream.dials.black_hole = {"manifest"}
        async with asking(upstream.url) as source:
            error = await refusal(source)
        assert (error.code, error.failure) == (ErrorCode.UNAVAILABLE, Failure.TIMEOUT)
        assert error.message == f"upstream {HOST} at {upstream.address} did not answer in time"
        assert upstream.counters.requests(kind="manifest") == 1

    async def test_that_fall_silent__inside_a_blob(self, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mirror.source.upstream.connections.READ_SECONDS", 0.2)
        digest = Digest(upstream.push_random_blob(APP.name, 300_000))
        upstream.dials.blob_stall = 100_000
        async with asking(upstream.url) as source:
            stream = await source.blobs.open(APP, digest, 0)
            received = 0
            while received < 100_000:
                received += len(await stream.read())
            with pytest.raises(RegistryError) as broken:
                await stream.read()
            await stream.close()
        assert received == 100_000
        assert broken.value.failure is Failure.TIMEOUT

    async def test_that_fall_silent__inside_a_manifest(
        self, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mirror.source.upstream.connections.READ_SECONDS", 0.2)
        headers = {"Content-Length": "1000"}
        upstream.dials.failures.append(bed.Failure(200, kind="manifest", body="plain", headers=headers))
        async with asking(upstream.url) as source:
            assert (await refusal(source)).failure is Failure.TIMEOUT
