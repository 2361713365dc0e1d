"""What one door knows the others know within a second, and without their hub what it told them last."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from mirror.app import DoorApp, HubApp, Pools
from mirror.channel import HubServer
from mirror.config import Settings, StoreSettings, Upstreams
from mirror.config.settings import Server
from mirror.config.units import Address, Size
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store import Link, Shelf, Store, TagState
from mirror.store.records import encode_row, tag_key
from tests.channel.conftest import eventually
from tests.chaos.filesystem import fill_up, small
from tests.replica import free_port

SECONDS = 20.0
REPOSITORY = Repository("docker.io", "library/app")
MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
OLD, NEW = b'{"old": 1}', b'{"new": 1}'
BLOB = Digest.of(b"a blob")


@dataclasses.dataclass
class Doors:
    """A hub and two doors that meet over its socket, each at a port of its own; no upstream answers."""

    hub: HubApp
    server: HubServer
    urls: list[str]
    session: aiohttp.ClientSession
    disk: Path

    @property
    def store(self) -> Store:
        return self.hub.store

    def point(self, body: bytes, age: float = 0.0) -> None:
        """Point the tag to a manifest, as if the upstream had said so `age` seconds ago."""
        digest = Digest.of(body)
        self.store.keep_manifest(REPOSITORY, digest, MEDIA_TYPE, body)
        assert self.store.set_tag(REPOSITORY, Tag("1"), TagState(digest, MEDIA_TYPE, len(body), time.time() - age))

    async def ask(self, what: str = "manifests/1") -> list[tuple[int, bytes]]:
        """Return each door's answer."""
        answers = []
        for url in self.urls:
            async with self.session.get(f"{url}/v2/{REPOSITORY.name}/{what}") as answer:
                answers.append((answer.status, await answer.read()))
        return answers

    async def wait(self, expected: tuple[int, bytes], seconds: float = 1.0) -> None:
        """Wait until every door gives an answer, and see that it stays so for a moment."""
        deadline = time.monotonic() + seconds
        while set(await self.ask()) != {expected}:
            assert time.monotonic() < deadline, await self.ask()
        for _ in range(20):
            assert set(await self.ask()) == {expected}

    async def settle(self) -> None:
        """Wait until everything is written."""
        await eventually(lambda: not self.store.shelf.has_unwritten and not self.store.shelf.unpublished)
        await asyncio.sleep(0.6)


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    with small(tmp_path / "disk", 24 * 2**20) as disk:
        settings = Settings(
            server=Server(admin_listen=Address("127.0.0.1", free_port())),
            store=StoreSettings(path=disk / "store", size=Size(1.0, is_share=True), min_free=Size(0, is_share=False)),
            upstreams=Upstreams({"docker.io": {"url": f"http://127.0.0.1:{free_port()}"}}),
        )
        hub = HubApp(settings, Pools())
        await hub.start()
        server = HubServer(hub.hub, tmp_path / "hub")
        await server.start()
        stopping = asyncio.Event()
        ports = [free_port(), free_port()]
        running = []
        for port in ports:
            own = msgspec.structs.replace(settings.server, listen=(Address("127.0.0.1", port),), shutdown_grace=0.1)
            door = DoorApp(msgspec.structs.replace(settings, server=own), tmp_path / "hub")
            running.append(asyncio.create_task(door.run(stopping)))
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(SECONDS)) as session:
            await eventually(lambda: len(server._connections) == 2)
            try:
                yield Doors(hub, server, urls, session, disk)
            finally:
                stopping.set()
                await asyncio.wait(running)
                await server.stop()
                await hub.stop()


async def test_tell__a_tag_that_moved(doors: Doors) -> None:
    doors.point(OLD, age=10)
    await doors.wait((200, OLD))
    await doors.settle()
    assert set(await doors.ask()) == {(200, OLD)}
    doors.point(NEW)
    await doors.wait((200, NEW))
    await doors.settle()
    assert set(await doors.ask()) == {(200, NEW)}


async def test_tell__a_tag_that_moved__on_a_full_disk(doors: Doors) -> None:
    doors.point(OLD, age=10)
    await doors.wait((200, OLD))
    await doors.settle()
    fill_up(doors.disk)
    doors.point(NEW)
    await doors.wait((200, NEW))


async def test_tell__a_tag_that_is_gone(doors: Doors) -> None:
    doors.point(OLD)
    await doors.wait((200, OLD))
    doors.store.drop_tag(REPOSITORY, Tag("1"))
    deadline = time.monotonic() + 1
    while 200 in {status for status, _ in await doors.ask()}:
        assert time.monotonic() < deadline


async def test_serve_without_the_hub__what_it_told_last(doors: Doors) -> None:
    doors.point(NEW, age=20)
    doors.point(OLD, age=10)
    await doors.settle()
    fill_up(doors.disk)  # it will never be written
    doors.point(NEW)
    await doors.wait((200, NEW))
    await doors.server.stop()
    for _ in range(8):
        assert set(await doors.ask()) == {(200, NEW)}
        await asyncio.sleep(0.2)


async def test_serve_without_the_hub__what_was_linked_just_now(doors: Doors) -> None:
    await asyncio.to_thread(_hold, doors.store)
    await doors.settle()
    fill_up(doors.disk)
    doors.store.link(REPOSITORY, BLOB, Link(None, True, 6))
    await asyncio.sleep(0.1)
    await doors.server.stop()
    assert await doors.ask(f"blobs/{BLOB}") == [(200, b"a blob")] * 2


async def test_hear_of__a_hub_that_knows_otherwise(doors: Doors) -> None:
    """What the hub lost with its life is not held against the one that comes back."""
    doors.point(NEW, age=20)
    doors.point(OLD, age=10)
    await doors.settle()
    fill_up(doors.disk)
    doors.point(NEW)
    await doors.wait((200, NEW))
    await doors.server.stop()
    doors.store.shelf._unwritten.clear()
    doors.store.shelf.forget([f"t:{REPOSITORY}:1"])
    doors.hub.hub._changes._boot = "another"
    doors.store.link(REPOSITORY, BLOB, Link(None, True, 6))  # as unwritten as what was lost
    await doors.server.start()
    await doors.wait((200, OLD), 2.0)


async def test_believe_the_index__once_the_hub_was_not_heard_from_for_long(doors: Doors) -> None:
    doors.point(OLD, age=10)
    await doors.settle()
    shelf = Shelf(doors.store.path, remembers_tags=False)
    shelf.follow(shelf.readers())
    now = time.monotonic()
    assert shelf.catch_up({}, is_settled=True, until=now + SECONDS)
    assert _digest(shelf) == Digest.of(OLD)
    doors.point(NEW)
    await doors.settle()
    assert _digest(shelf) == Digest.of(OLD), "it believes what it remembers"
    assert shelf.catch_up({}, is_settled=False, until=now)
    assert _digest(shelf) == Digest.of(NEW)
    told = {tag_key(str(REPOSITORY), "1"): encode_row(TagState(Digest.of(OLD), MEDIA_TYPE, 10, time.time() - 5))}
    assert shelf.catch_up(told, is_settled=False, until=now)
    assert _digest(shelf) == Digest.of(NEW), "what it was told is older than the index"
    told = {tag_key(str(REPOSITORY), "1"): encode_row(TagState(Digest.of(OLD), MEDIA_TYPE, 10, time.time() + 5))}
    assert shelf.catch_up(told, is_settled=False, until=now)
    assert _digest(shelf) == Digest.of(OLD), "what it was told is not yet in the index"
    shelf.close()


def _digest(shelf: Shelf) -> Digest | None:
    state = shelf.tag(REPOSITORY, "1")
    return None if state is None else state.digest


def _hold(store: Store) -> None:
    path = Path(store.content.path(BLOB))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a blob")
