"""Last use: gathered in memory, written in batches as access times, and so never lost with an index."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.use import Use
from mirror.store import Content
from mirror.store.usage import write_last_use
from tests.store.stock import Image, opened, put_blob, until

HELD, GONE = b"held", Digest.of(b"gone")


def used_at(content: Content, data: bytes) -> float:
    return os.stat(content.path(Digest.of(data))).st_atime  # noqa: PTH116 - what usage writes


async def test_becomes_the_access_time__and_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path / "store") as store:
        content = store.content
        put_blob(store, Digest.of(HELD), HELD)
        path = content.path(Digest.of(HELD))
        os.utime(path, (1_000, 2_000))
        write_last_use(content, {GONE: 3_000.0, Digest.of(HELD): 1_234_567.5})
        assert used_at(content, HELD) == pytest.approx(1_234_567.5)
        assert os.stat(path).st_mtime == 2_000  # noqa: PTH116 - beside st_atime
        assert content.read(GONE) is None


async def test_is_written__when_the_store_closes(tmp_path: Path) -> None:
    started = time.time()
    path = tmp_path / "store"
    async with opened(path) as store:
        put_blob(store, Digest.of(HELD), HELD)
        os.utime(store.content.path(Digest.of(HELD)), (1_000, 2_000))
        store.shelf.touch(Digest.of(HELD))
        store.shelf.touch(GONE)
        assert used_at(store.content, HELD) == 1_000
    assert started <= used_at(Content(path / "content"), HELD) <= time.time() + 1


async def test_is_written__while_the_store_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.store.usage._EVERY_SECONDS", 0.01)
    async with opened(tmp_path / "store") as store:
        put_blob(store, Digest.of(HELD), HELD)
        store.shelf.add_used({Digest.of(HELD): Use(1, 4_000.0)})
        await until(lambda: used_at(store.content, HELD) == 4_000)


async def test_is_told__for_each_digest_once_and_latest(tmp_path: Path) -> None:
    async with opened(tmp_path / "store") as store:
        shelf, image = store.shelf, Image(0)
        shelf.add_used({image.digest: Use(2, 1.0), GONE: Use(1, 2.0)})
        shelf.touch(image.digest)
        used = shelf.take_used()
        assert used.keys() == {image.digest, GONE}
        assert used[image.digest].last == pytest.approx(time.time(), abs=60)
        assert (used[image.digest].times, used[GONE]) == (3, Use(1, 2.0))
        assert shelf.take_used() == {}


async def test_is_told__with_the_time_of_the_use_itself(tmp_path: Path) -> None:
    async with opened(tmp_path / "store") as store:
        store.shelf.touch(GONE)
        used = time.time()
        await asyncio.sleep(0.05)
        assert store.shelf.take_used()[GONE].last <= used
