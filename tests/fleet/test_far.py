"""A Redis that is far away, but there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from yarl import URL

from mirror.fleet import Posted, Turn, allowance
from tests.fleet.members import Fleet
from tests.fleet.servers import Valkey

_DELAY = 0.04


@pytest.fixture
async def far(valkey: Valkey) -> AsyncIterator[str]:
    """Return the URL of a Valkey that is 40 ms away, each way."""
    port = URL(valkey.url).port

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(2**16):
                await asyncio.sleep(_DELAY)
                writer.write(piece)
        writer.close()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, there[1]), carry(there[0], writer))

    server = await asyncio.start_server(pass_on, "127.0.0.1", 0)
    async with server:
        yield str(URL(valkey.url).with_port(server.sockets[0].getsockname()[1]))


async def test_waits_for_another_s_answer__however_often_it_looks(tmp_path: Path, far: str) -> None:
    async with Fleet(tmp_path, far) as fleet:
        one, two = await fleet.member("one"), await fleet.member("two")
        turn = await one.consult("topic", 0.0, 30.0)
        assert isinstance(turn, Turn)
        with allowance():
            waiting = asyncio.create_task(two.consult("topic", 0.0, 30.0))
        # Long enough for more looks than 250 ms would be enough for.
        await asyncio.sleep(2.5)
        await one.post(turn, b"answer", 5.0, 60.0)
        async with asyncio.timeout(20):
            assert await waiting == Posted(b"answer", 5.0)
