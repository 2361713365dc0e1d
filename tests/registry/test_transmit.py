"""Bodies of files: sent a slice at a time, and one slice a turn of the event loop, however many are sent at once."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mirror.config import Settings
from mirror.config.units import Address
from mirror.observe.metrics import DoorMetrics, new_registry
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.pull import Pull
from mirror.registry import Door, sender
from mirror.registry.sender import SLICE
from mirror.store import Link, Shelf
from mirror.store.freshness import Freshness
from mirror.store.records import link_key
from tests.replica import free_port

_SECONDS = 20.0
_READERS = 8
_BLOB = os.urandom(SLICE) * 8
_DIGEST = Digest.of(_BLOB)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Return a shelf with the blob."""
    shelf = Shelf(tmp_path, remembers_tags=True)
    path = Path(shelf.content.path(_DIGEST))
    path.parent.mkdir(parents=True)
    path.write_bytes(_BLOB)
    key = link_key(str(Repository("docker.io", "library/app")), _DIGEST)
    shelf.remember({key: Link(None, is_blob=True, size=len(_BLOB))})
    return shelf


@pytest.fixture
async def port(shelf: Shelf) -> AsyncIterator[int]:
    """Return the port of a door that holds the blob."""
    settings = Settings()
    pull = Pull(shelf, None, Freshness(settings.freshness), settings)  # type: ignore[arg-type]
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        door = Door(settings, pull, DoorMetrics(new_registry()), pool)
        await door.start([Address("127.0.0.1", port)])
        yield port
        await door.stop(0)


async def _read(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /v2/library/app/blobs/{_DIGEST} HTTP/1.1\r\nHost: mirror\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    body = await reader.readexactly(len(_BLOB))
    writer.close()
    return body


async def test_sends_one_slice_a_turn__to_many(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    turn, sent = 0, Counter[int]()

    def count() -> None:
        nonlocal turn
        turn += 1
        counting[0] = loop.call_soon(count)

    def spy(out: int, source: int, offset: int, length: int) -> int:
        taken = sendfile(out, source, offset, length)
        sent[turn] += taken
        return taken

    sendfile = os.sendfile
    monkeypatch.setattr(os, "sendfile", spy)
    counting = [loop.call_soon(count)]
    async with asyncio.timeout(_SECONDS):
        bodies = await asyncio.gather(*(_read(port) for _ in range(_READERS)))
    counting[0].cancel()
    assert all(body == _BLOB for body in bodies)
    assert sum(sent.values()) == _READERS * len(_BLOB)
    assert max(sent.values()) <= SLICE


async def test_sends_to_others__while_one_takes_nothing(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as idle:
        idle.sendall(f"GET /v2/library/app/blobs/{_DIGEST} HTTP/1.1\r\nHost: mirror\r\n\r\n".encode())
        async with asyncio.timeout(_SECONDS):
            assert await _read(port) == _BLOB


async def test_cuts__who_takes_nothing(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "_STALLED_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**10)
    writer.write(f"GET /v2/library/app/blobs/{_DIGEST} HTTP/1.1\r\nHost: mirror\r\n\r\n".encode())
    async with asyncio.timeout(_SECONDS):
        await reader.readuntil(b"\r\n\r\n")
        assert await _read(port) == _BLOB
        # It takes nothing for as long as it takes to be cut, which it sees once it does.
        await asyncio.sleep(1)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(len(_BLOB))
    writer.close()


async def test_sends_all__to_one_that_pauses(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**10)
    writer.write(f"GET /v2/library/app/blobs/{_DIGEST} HTTP/1.1\r\nHost: mirror\r\n\r\n".encode())
    async with asyncio.timeout(_SECONDS):
        await reader.readuntil(b"\r\n\r\n")
        body = b""
        while len(body) < len(_BLOB):
            body += await reader.readexactly(2**20)
            await asyncio.sleep(0.02)
    assert body == _BLOB
    writer.close()
