"""How long a door waits for a hub that is away."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from mirror.channel import RemoteHub, client
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Repository

_SECONDS = 20.0
_REPOSITORY = Repository("docker.io", "library/any")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PATIENCE_SECONDS", math.inf)


async def test_ends__for_who_waits_already(tmp_path: Path) -> None:
    hub = RemoteHub(tmp_path / "hub")
    waiting = [asyncio.create_task(hub.tags(_REPOSITORY, "")) for _ in range(3)]
    await asyncio.sleep(0)
    hub.expect_no_return()
    async with asyncio.timeout(_SECONDS):
        answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, RegistryError) and each.status == 503 for each in answers)
    await hub.close()


async def test_ends__when_the_hub_is_lost_meanwhile(tmp_path: Path) -> None:
    asked, lost = asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        asked.set()
        await lost.wait()
        writer.close()

    server = await asyncio.start_unix_server(hang, tmp_path / "hub")
    hub = RemoteHub(tmp_path / "hub")
    waiting = asyncio.create_task(hub.tags(_REPOSITORY, ""))
    async with asyncio.timeout(_SECONDS):
        await asked.wait()
        server.close()
        (tmp_path / "hub").unlink()
        hub.expect_no_return()
        lost.set()
        with pytest.raises(RegistryError, match="restarting"):
            await waiting
    await hub.close()
