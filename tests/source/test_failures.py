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
        ("sent", "told"), [("60", 60), (None, failures.LIMITED_SECONDS), ("soon", failures.LIMITED_SECONDS)]
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

    @pytest.mark.parametrize("status", [403, 404])
    async def test_are_not_made__against_a_word(self, status: int, upstream: Upstream, source: Source) -> None:
        upstream.dials.failures.append(bed.Failure(status, kind="manifest", body="plain"))
        await refusal(source)
        assert upstream.counters.requests(kind="manifest") == 1

    @pytest.mark.parametrize("status", [400, 405, 411, 418, 501])
    async def test_are_not_made__against_what_will_not_pass(
        self, status: int, upstream: Upstream, source: Source
    ) -> None:
        upstream.dials.failures.append(bed.Failure(status, kind="manifest"))
        assert (await refusal(source)).failure is Failure.SERVER
        assert upstream.counters.requests(kind="manifest") == 1

    @pytest.mark.parametrize("location", ["http://localhost.:1/x", "ftp://x/", "/v2/library/app/manifests/1"])
    async def test_are_not_made__where_it_leads_nowhere(
        self, location: str, upstream: Upstream, source: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def never(*_: object) -> bool:
            return False

        monkeypatch.setattr("mirror.source.upstream.guard.Privacy.is_private", never)
        upstream.dials.failures.append(bed.Failure(307, kind="manifest", headers={"Location": location}))
        assert (await refusal(source)).failure is Failure.SERVER
        assert upstream.counters.requests(kind="manifest") == 1

    async def test_wait__as_long_as_an_overloaded_upstream_asks_for(self, upstream: Upstream, source: Source) -> None:
        upstream.push_image(APP.name, TAG, layers=(1_000,))
        upstream.dials.failures.append(bed.Failure(503, kind="manifest", times=1, retry_after="1"))
        began = time.monotonic()
        await source.manifests.fetch(source.upstream, APP, TAG)
        assert time.monotonic() - began >= 1

    async def test_are_not_made__while_an_upstream_is_overloaded_for_long(
        self, upstream: Upstream, source: Source
    ) -> None:
        upstream.dials.failures.append(bed.Failure(503, kind="manifest", retry_after="60"))
        error = await refusal(source)
        assert (error.status, error.retry_after) == (503, 60)
        assert upstream.counters.requests(kind="manifest") == 1

    async def test_help__against_a_body_that_broke(self) -> None:
        body = b'{"schemaVersion": 2}'
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        answers = [head + body[:5], head + body]

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answers.pop(0))
            writer.close()

        port = free_port()
        async with await asyncio.start_server(answer, "127.0.0.1", port), asking(f"http://127.0.0.1:{port}") as source:
            assert (await source.manifests.fetch(source.upstream, APP, TAG)).body == body
        assert source.counted("layover_upstream_retries_total", reason="reset") == 1

    @pytest.mark.parametrize(
        ("failure", "requests"),
        [
            (bed.Failure(503, kind="manifest"), 2),
            (bed.Failure(503, kind="manifest", retry_after="1"), 1),
            (bed.Failure(429, kind="manifest", retry_after="1"), 1),
            (bed.Failure(429, kind="manifest"), 1),
            (bed.Failure(404, kind="manifest"), 1),
        ],
    )
    async def test_are_few__while_somebody_waits_who_can_be_answered_otherwise(
        self, failure: bed.Failure, requests: int, upstream: Upstream, source: Source
    ) -> None:
        upstream.dials.failures.append(failure)
        with pytest.raises(RegistryError):
            await source.manifests.head(source.upstream, APP, TAG, is_quick=True)
        assert upstream.counters.requests(kind="manifest") == requests

    async def test_are_made_at_once__while_somebody_waits_who_can_be_answered_otherwise(
        self, upstream: Upstream, source: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sleep, paused = asyncio.sleep, []

        async def pause(seconds: float) -> None:
            paused.append(seconds)
            await sleep(0)

        upstream.dials.failures.append(bed.Failure(503, kind="manifest"))
        monkeypatch.setattr(asyncio, "sleep", pause)
        with pytest.raises(RegistryError):
            await source.manifests.head(source.upstream, APP, TAG, is_quick=True)
        assert upstream.counters.requests(kind="manifest") == 2
        assert not any(paused)

    async def test_are_few__where_nobody_listens(self, upstream: Upstream, source: Source) -> None:
        upstream.pause()
        with pytest.raises(RegistryError):
            await source.manifests.head(source.upstream, APP, TAG, is_quick=True)
        assert source.counted("layover_upstream_requests_total", kind="manifest", method="HEAD", status="refused") == 1

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
        assert error.message == f"upstream {HOST} at 127.0.0.1:{port} sent something that is no HTTP answer"
        assert source.counted("layover_upstream_requests_total", kind="manifest", method="GET", status="reset") == 1

    async def test_that_are_silent(self, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mirror.source.upstream.connections.READ_SECONDS", 0.2)
        upstream.dials.black_hole = {"manifest"}
        async with asking(upstream.url) as source:
            error = await refusal(source)
        assert (error.code, error.failure) == (ErrorCode.UNAVAILABLE, Failure.TIMEOUT)
        assert error.message == f"upstream {HOST} at {upstream.address} did not answer in time"
        assert upstream.counters.requests(kind="manifest") == 1

    async def test_that_are_silent__before_a_blob(self, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mirror.source.upstream.client.BUDGET_SECONDS", 0.2)
        monkeypatch.setattr("mirror.source.upstream.client._LEAST_SECONDS", 0.1)
        digest = Digest(upstream.push_random_blob(APP.name, 10))
        upstream.dials.black_hole = {"blob"}
        async with asking(upstream.url) as source:
            with pytest.raises(RegistryError) as refused:
                await source.blobs.open(APP, digest, 0)
        assert (refused.value.code, refused.value.failure) == (ErrorCode.UNAVAILABLE, Failure.TIMEOUT)
        assert upstream.counters.requests() == 1

    @pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"])
    async def test_that_are_no_tls(self, says: bytes) -> None:
        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(says)
            writer.close()

        port = free_port()
        async with await asyncio.start_server(answer, "127.0.0.1", port), asking(f"https://127.0.0.1:{port}") as source:
            error = await refusal(source)
        assert (error.code, error.failure) == (ErrorCode.UNAVAILABLE, Failure.TLS)

    async def test_that_fall_silent__inside_a_blob(self, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mirror.source.upstream.blobs.STALL_SECONDS", 0.2)
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


class TestBreaker:
    async def test_spares__an_upstream_that_is_gone(self, upstream: Upstream, source: Source) -> None:
        upstream.push_image(APP.name, TAG, layers=(1_000,))
        upstream.pause()
        first = await refusal(source)
        made = source.counted("layover_upstream_requests_total", kind="manifest", method="GET", status="refused")
        questions = [source.manifests.fetch(source.upstream, APP, Tag(str(number))) for number in range(100)]
        for error in await asyncio.gather(*questions, return_exceptions=True):
            assert isinstance(error, RegistryError)
            assert (error.message, error.failure, error.retry_after) == (first.message, first.failure, 10)
        again = source.counted("layover_upstream_requests_total", kind="manifest", method="GET", status="refused")
        # One was let through to see, for itself and for all others.
        assert (made, again) == (3, 4)
        assert source.counted("layover_upstream_up") == 0

    async def test_has_nobody_wait__who_can_be_answered_otherwise(self, upstream: Upstream, source: Source) -> None:
        upstream.pause()
        await refusal(source)
        for _ in range(100):
            with pytest.raises(RegistryError):
                await source.manifests.head(source.upstream, APP, TAG, is_quick=True)
        assert source.counted("layover_upstream_requests_total", kind="manifest", method="HEAD", status="refused") <= 3

    async def test_ends__soon_after_the_upstream_is_back(self, upstream: Upstream, source: Source) -> None:
        upstream.push_image(APP.name, TAG, layers=(1_000,))
        upstream.pause()
        await refusal(source)
        upstream.resume()
        for _ in range(500):
            try:
                await source.manifests.fetch(source.upstream, APP, TAG)
                break
            except RegistryError:
                await asyncio.sleep(0.02)
        assert source.counted("layover_upstream_up") == 1
        assert upstream.counters.requests() == 1

    async def test_spares__an_upstream_that_is_silent(
        self, upstream: Upstream, source: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mirror.source.upstream.client.BUDGET_SECONDS", 0.2)
        monkeypatch.setattr("mirror.source.upstream.client._LEAST_SECONDS", 0.1)
        upstream.dials.black_hole = {"manifest"}
        for is_up in (1, 0):
            assert (await refusal(source)).failure is Failure.TIMEOUT
            assert source.counted("layover_upstream_up") == is_up

    async def test_lets_a_probe_pass(self, upstream: Upstream, source: Source) -> None:
        upstream.push_image(APP.name, TAG, layers=(1_000,))
        upstream.pause()
        await refusal(source)
        upstream.resume()
        await source.manifests.head(source.upstream, APP, TAG, is_probe=True)
        await source.manifests.fetch(source.upstream, APP, TAG)

    async def test_is_not_opened__by_storage_elsewhere(self, upstream: Upstream, source: Source) -> None:
        upstream.push_image(APP.name, TAG, layers=(1_000,))
        digest = Digest(upstream.push_random_blob(APP.name, 10))
        upstream.dials.redirect, upstream.dials.redirect_to = True, f"http://127.0.0.1:{free_port()}/x"
        for _ in range(3):
            with pytest.raises(RegistryError) as refused:
                await source.blobs.open(APP, digest, 0)
            assert refused.value.failure is Failure.REFUSED
        await source.manifests.fetch(source.upstream, APP, TAG)
        assert source.counted("layover_upstream_up") == 1
