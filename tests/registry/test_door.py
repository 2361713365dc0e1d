"""What becomes of connections when the door, or a client, ends: answered, or closed at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mirror.channel import ManifestFound
from mirror.config import Settings
from mirror.config.units import Address
from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.observe.metrics import DoorMetrics, new_registry
from mirror.oci.digest import Digest
from mirror.oci.reference import Reference, Repository
from mirror.pull import Pull
from mirror.registry import Door
from tests.replica import free_port

_SECONDS = 20.0
_BODY = b'{"schemaVersion":2}'
_PING = b"GET /v2/ HTTP/1.1\r\nHost: mirror\r\n\r\n"
_MANIFEST = b"GET /v2/library/app/manifests/1 HTTP/1.1\r\nHost: mirror\r\n\r\n"


class _Held(Pull):
    """Manifests that come when the test says so."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.released = asyncio.Event()

    async def manifest(self, repository: Repository, reference: Reference) -> ManifestFound:
        self.asked.set()
        await self.released.wait()
        return ManifestFound(Digest.of(_BODY), "application/json", _BODY, CacheStatus(Outcome.HIT))

    def pulled(self, repository: Repository, digest: Digest) -> None:
        """Tell nobody."""


class _Bench:
    """A door that listens, and its port."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.port = free_port()
        self.pull = _Held()
        self.door = Door(Settings(), self.pull, DoorMetrics(new_registry()), pool)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection that the door has made."""
        streams = await asyncio.open_connection("127.0.0.1", self.port)
        async with asyncio.timeout(_SECONDS):
            while not self.door._protocol.connections:  # noqa: ASYNC110 - nobody tells when it is
                await asyncio.sleep(0)
        return streams


@pytest.fixture
async def bench() -> AsyncIterator[_Bench]:
    with ThreadPoolExecutor(1) as pool:
        bench = _Bench(pool)
        await bench.door.start([Address("127.0.0.1", bench.port)])
        yield bench
        bench.pull.released.set()
        await bench.door.stop(0)


@pytest.fixture
def no_garbage_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return the head and the body of an answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    return head, await reader.readexactly(length)


async def assert_ended(reader: asyncio.StreamReader) -> None:
    """Check that nothing more comes."""
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""


async def test_ends_a_connection__that_was_accepted_as_it_stopped_listening(
    bench: _Bench, no_garbage_collector: None
) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", bench.port)) as client:
        client.setblocking(False)
        client.send(_PING)
        async with asyncio.timeout(_SECONDS):
            # Accepted, and not yet a connection: only the task that is to make it one is there.
            while len(asyncio.all_tasks()) < 2:  # noqa: ASYNC110 - what is to happen lies between two steps
                await asyncio.sleep(0)
            await bench.door.stop(math.inf)
            with contextlib.suppress(ConnectionResetError):
                assert await loop.sock_recv(client, 1) == b""


@pytest.mark.parametrize("sent", [b"", _PING[:9], _PING], ids=["nothing", "half a request", "a request"])
async def test_closes_at_once__who_waits_for_no_answer(bench: _Bench, sent: bytes) -> None:
    async with asyncio.timeout(_SECONDS):
        reader, writer = await bench.connect()
        writer.write(sent)
        if sent == _PING:
            assert (await answer(reader))[0].startswith(b"HTTP/1.1 200")
        await bench.door.stop(math.inf)
        await assert_ended(reader)
        writer.close()


@pytest.mark.parametrize("steps", range(6))
async def test_answers__whatever_was_received(bench: _Bench, steps: int) -> None:
    """Between the bytes and the handler lie several steps of the event loop."""
    bench.pull.released.set()
    async with asyncio.timeout(_SECONDS):
        reader, writer = await bench.connect()
        writer.write(_PING)
        await answer(reader)
        (connection,) = bench.door._protocol.connections
        connection.data_received(_MANIFEST)
        for _ in range(steps):
            await asyncio.sleep(0)
        bench.door._protocol.finish()
        head, body = await answer(reader)
        assert head.startswith(b"HTTP/1.1 200")
        assert body == _BODY
        await bench.door.stop(math.inf)
        await assert_ended(reader)
        writer.close()


async def test_says_that_an_answer_is_the_last(bench: _Bench) -> None:
    async with asyncio.timeout(_SECONDS):
        reader, writer = await bench.connect()
        writer.write(_MANIFEST + _MANIFEST)
        await bench.pull.asked.wait()
        stopping = asyncio.create_task(bench.door.stop(math.inf))
        while not bench.door._protocol.is_finishing:  # noqa: ASYNC110 - nobody tells when it is
            await asyncio.sleep(0)
        bench.pull.released.set()
        head, body = await answer(reader)
        assert b"connection: close" in head.lower()
        assert body == _BODY
        await assert_ended(reader)
        await stopping
        writer.close()


async def test_cuts__what_is_left_after_the_grace(bench: _Bench) -> None:
    async with asyncio.timeout(_SECONDS):
        reader, writer = await bench.connect()
        writer.write(_MANIFEST)
        await bench.pull.asked.wait()
        await bench.door.stop(0.05)
        await assert_ended(reader)
        writer.close()


@pytest.mark.parametrize("asks", [False, True])
async def test_closes__when_an_idle_client_does(bench: _Bench, asks: bool) -> None:
    async with asyncio.timeout(_SECONDS):
        reader, writer = await bench.connect()
        if asks:
            writer.write(_PING)
            await answer(reader)
        writer.write_eof()
        await assert_ended(reader)
        await bench.door._protocol.is_empty.wait()
        writer.close()


async def test_answers__a_client_that_closed_its_half(bench: _Bench) -> None:
    async with asyncio.timeout(_SECONDS):
        reader, writer = await bench.connect()
        writer.write(_MANIFEST)
        writer.write_eof()
        await bench.pull.asked.wait()
        bench.pull.released.set()
        assert (await answer(reader))[1] == _BODY
        await assert_ended(reader)
        await bench.door._protocol.is_empty.wait()
        writer.close()
