"""Answers that no registry gives: each ends within bounds of time and memory, and says what it was."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest

from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Tag
from mirror.source.upstream.ask import Ask
from tests import upstream as bed
from tests.replica import free_port
from tests.source.conftest import APP, Source, asking
from tests.upstream import Upstream

TAG = Tag("1")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every budget be short, so that what has none is told by the test's own time."""
    monkeypatch.setattr("mirror.source.upstream.client.BUDGET_SECONDS", 1.0)
    monkeypatch.setattr("mirror.source.upstream.client._LEAST_SECONDS", 1.0)
    monkeypatch.setattr("mirror.source.upstream.body.BODY_SECONDS", 1.0)


@pytest.fixture(autouse=True)
def _pushed(upstream: Upstream) -> None:
    """Have there be what is asked for."""
    upstream.push_image(APP.name, TAG, layers=(10,))
    upstream.push_blob(APP.name, b"")


async def refused(source: Source, kind: str) -> RegistryError:
    """Ask for what ends in an error, and return it."""
    questions: dict[str, Callable[[], Awaitable[object]]] = {
        "blob": lambda: source.blobs.open(APP, Digest.of(b""), 0),
        "head": lambda: source.manifests.head(source.upstream, APP, TAG),
        "manifest": lambda: source.manifests.fetch(source.upstream, APP, TAG),
    }
    with pytest.raises(RegistryError) as raised:
        await questions[kind]()
    return raised.value


class TestHeads:
    @pytest.mark.parametrize("kind", ["manifest", "head", "blob"])
    async def test_end__though_they_drip(self, kind: str, upstream: Upstream, source: Source) -> None:
        upstream.dials.drip_headers = {"*"}
        error = await refused(source, kind)
        assert (error.code, error.failure) == (ErrorCode.UNAVAILABLE, Failure.TIMEOUT)
        assert upstream.counters.requests() == 1

    @pytest.mark.parametrize("kind", ["manifest", "head", "blob"])
    @pytest.mark.parametrize("line", [4_000, 2**20])
    async def test_are_refused__once_they_are_too_long(
        self, line: int, kind: str, upstream: Upstream, source: Source
    ) -> None:
        upstream.dials.heavy_headers, upstream.dials.heavy_header_line = {"*"}, line
        error = await refused(source, kind)
        assert error.code is ErrorCode.UNAVAILABLE
        assert "no HTTP answer" in error.message
        assert upstream.counters.requests() == 1

    async def test_end__in_a_flood_of_interim_answers(self) -> None:
        flood = b"HTTP/1.1 100 Continue\r\n\r\n" * 1000
        ended = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(flood)
                    await writer.drain()
            writer.close()
            ended.set()

        port = free_port()
        async with await asyncio.start_server(answer, "127.0.0.1", port), asking(f"http://127.0.0.1:{port}") as source:
            assert "no HTTP answer" in (await refused(source, "manifest")).message
            await ended.wait()

    async def test_are_read__after_a_few_interim_answers(self) -> None:
        body = b'{"schemaVersion": 2}'
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(5):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(interim + head + body)
            writer.close()

        port = free_port()
        async with await asyncio.start_server(answer, "127.0.0.1", port), asking(f"http://127.0.0.1:{port}") as source:
            for _ in range(5):
                assert (await source.manifests.fetch(source.upstream, APP, TAG)).body == body


class TestBodies:
    async def test_end__though_they_drip(self, upstream: Upstream, source: Source) -> None:
        upstream.dials.drip_body = {"manifest"}
        error = await refused(source, "manifest")
        assert (error.code, error.failure) == (ErrorCode.UNAVAILABLE, Failure.TIMEOUT)
        assert upstream.counters.requests() == 1

    async def test_end__though_they_are_endless(self, upstream: Upstream, source: Source) -> None:
        upstream.dials.endless = {"manifest"}
        tracemalloc.start()
        try:
            error = await refused(source, "manifest")
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert "more than" in error.message
        assert most < 32 * 2**20

    async def test_are_refused__in_a_coding_that_swells(self, upstream: Upstream, source: Source) -> None:
        upstream.dials.gzip_bomb = {"*"}
        for kind in ("manifest", "blob"):
            error = await refused(source, kind)
            assert "coding" in error.message
        assert upstream.counters.requests() == 2

    async def test_end__together_with_their_heads(self, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mirror.source.upstream.body.BODY_SECONDS", 1000.0)
        upstream.dials.drip_body = {"tags"}
        async with asking(upstream.url) as source:
            ask = Ask(source.upstream, APP, "tags", "GET", "tags/list", ErrorCode.NAME_UNKNOWN)
            with pytest.raises(RegistryError) as raised:
                await source.client.read(await source.client.ask(ask), ask, 2**20)
        assert raised.value.failure is Failure.TIMEOUT

    async def test_of_errors__are_not_waited_for_long(
        self, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mirror.source.upstream.client.BUDGET_SECONDS", 1000.0)
        monkeypatch.setattr("mirror.source.upstream.client._ERROR_SECONDS", 0.1)
        monkeypatch.setattr("mirror.source.upstream.connections.READ_SECONDS", 1000.0)
        headers = {"Content-Length": "100000"}
        upstream.dials.failures.append(bed.Failure(404, kind="manifest", headers=headers))
        async with asking(upstream.url) as source:
            assert (await refused(source, "manifest")).status == 404
