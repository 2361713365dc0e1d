"""The index is derived: whatever happens to it, everything is served by tag and by digest once the store is open."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from mirror.store.journal import Journal
from mirror.store.records import TagSet
from tests.chaos.filesystem import fill_up, small
from tests.store.conftest import Stocked
from tests.store.stock import INDEXES, REPOSITORY, Image, missing, opened

DAMAGES = 80


def remove_all(index: Path) -> None:
    shutil.rmtree(index)


def remove_databases(index: Path) -> None:
    for name in INDEXES:
        (index / name / "cache.db").unlink()


def empty_databases(index: Path) -> None:
    for name in INDEXES:
        (index / name / "cache.db").write_bytes(b"")


def forget_position(index: Path) -> None:
    _execute(index, "DELETE FROM Cache WHERE key = 'journal'")


def damage_position(index: Path) -> None:
    _execute(index, "UPDATE Cache SET value = CAST('x:y' AS BLOB) WHERE key = 'journal'")


def lose_rows(index: Path) -> None:
    _execute(index, "DELETE FROM Cache WHERE key NOT IN ('journal') AND rowid % 3 = 0")


def scramble_values(index: Path) -> None:
    _execute(index, "UPDATE Cache SET value = randomblob(length(value)) WHERE key <> 'journal'")


def point_tags_elsewhere(index: Path) -> None:
    with closing(sqlite3.connect(index / "records" / "cache.db")) as database, database:
        rows = database.execute("SELECT rowid, value FROM Cache WHERE key LIKE 't:%'").fetchall()
        for rowid, value in rows:
            changed = bytearray(value)
            changed[20] = ord("0") if changed[20] != ord("0") else ord("1")
            database.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (bytes(changed), rowid))


def drop_tables(index: Path) -> None:
    for name in INDEXES:
        with closing(sqlite3.connect(index / name / "cache.db")) as database, database:
            database.execute("DROP TABLE Cache")


def newer_schema(index: Path) -> None:
    for name in INDEXES:
        _overwrite(index / name / "cache.db", 44, b"\x00\x00\x00\x09")


def newer_write_version(index: Path) -> None:
    for name in INDEXES:
        _overwrite(index / name / "cache.db", 18, b"\x09")


def _execute(index: Path, statement: str) -> None:
    with closing(sqlite3.connect(index / "records" / "cache.db")) as database, database:
        assert database.execute(statement).rowcount > 0


def _overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def _damage_at_random(index: Path, seed: int) -> None:
    """Truncate one database, or overwrite some of it with garbage, zeros, or a flipped bit."""
    chance = random.Random(seed)
    path = index / chance.choice(INDEXES) / "cache.db"
    size = path.stat().st_size
    kind = chance.choice(["truncate", "garbage", "page of garbage", "zeros", "bit", "header"])
    if kind == "truncate":
        with path.open("r+b") as file:
            file.truncate(chance.randrange(size))
        return
    offset = chance.randrange(100 if kind == "header" else size)
    old = path.read_bytes()[offset]
    data = {
        "garbage": chance.randbytes(chance.randrange(1, 200)),
        "page of garbage": chance.randbytes(4096),
        "zeros": bytes(4096),
        "bit": bytes([old ^ 1 << chance.randrange(8)]),
        "header": chance.randbytes(1),
    }[kind]
    _overwrite(path, offset, data)


@pytest.mark.parametrize(
    "damage",
    [
        remove_all,
        remove_databases,
        empty_databases,
        forget_position,
        damage_position,
        drop_tables,
        newer_schema,
        newer_write_version,
        lose_rows,
        scramble_values,
        point_tags_elsewhere,
    ],
)
async def test_serves_everything__after_damage(damage: Callable[[Path], None], stock: Stocked) -> None:
    damage(stock.path / "index")
    async with opened(stock.path) as store:
        assert missing(store, stock.images) == []
    async with opened(stock.path) as store:
        assert missing(store, stock.images) == []


@pytest.mark.parametrize("seed", range(DAMAGES))
async def test_serves_everything__after_damage_at_random(seed: int, stock: Stocked) -> None:
    _damage_at_random(stock.path / "index", seed)
    async with opened(stock.path) as store:
        assert missing(store, stock.images) == []


async def test_rebuilds__an_index_that_is_damaged_while_it_is_open(stock: Stocked) -> None:
    async with opened(stock.path) as store:
        scramble_values(stock.path / "index")
        left = missing(store, stock.images)
        for _ in range(500):
            await asyncio.sleep(0.01)
            left = missing(store, stock.images)
            if not left:
                break
        assert left == []


@pytest.mark.parametrize("damage", [None, remove_all], ids=["index", "no index"])
async def test_serves_everything__opened_on_a_full_disk(
    damage: Callable[[Path], None] | None, stock: Stocked, tmp_path: Path
) -> None:
    with small(tmp_path / "disk", 8 * 2**20) as disk:
        path = disk / "store"
        shutil.copytree(stock.path, path)
        if damage is not None:
            damage(path / "index")
            (path / "index").mkdir()
        fillers = fill_up(disk)
        late = Image(len(stock.images))
        async with opened(path) as store:
            assert missing(store, stock.images) == []
            store.set_tag(REPOSITORY, late.tag, late.state)
            assert store.shelf.tag(REPOSITORY, late.tag) == late.state
            for filler in fillers:
                filler.unlink()
        async with opened(path) as store:
            assert missing(store, stock.images) == []
            assert store.shelf.tag(REPOSITORY, late.tag) == late.state


async def test_remembers__what_came_after_a_rebuild(stock: Stocked) -> None:
    remove_all(stock.path / "index")
    dropped, *others = stock.images
    late = Image(len(stock.images))
    async with opened(stock.path) as store:
        store.drop_tag(REPOSITORY, dropped.tag)
        late.put(store)
    async with opened(stock.path) as store:
        assert store.shelf.tag(REPOSITORY, dropped.tag) is None
        assert missing(store, [*others, late]) == []


async def test_forgets_nothing__when_the_journal_shrinks(stock: Stocked) -> None:
    size = _swell(stock)
    async with opened(stock.path) as store:
        assert missing(store, stock.images) == []
        for _ in range(500):
            if (stock.path / "journal").stat().st_size < size // 10:
                break
            await asyncio.sleep(0.01)
        assert (stock.path / "journal").stat().st_size < size // 10
        assert missing(store, stock.images) == []
    remove_all(stock.path / "index")
    async with opened(stock.path) as store:
        assert missing(store, stock.images) == []


async def test_goes_on__where_the_journal_cannot_shrink(stock: Stocked) -> None:
    _swell(stock)
    (stock.path / "journal.new").mkdir()
    late = Image(len(stock.images))
    async with opened(stock.path) as store:
        assert missing(store, stock.images) == []
        late.put(store)
    (stock.path / "journal.new").rmdir()
    async with opened(stock.path) as store:
        assert missing(store, [*stock.images, late]) == []


def _swell(stock: Stocked) -> int:
    """Let the journal grow until it wants to shrink, by one tag's moves, and return its size."""
    journal = Journal(stock.path / "journal")
    moves = [TagSet(str(REPOSITORY), stock.images[0].tag, stock.images[0].state)] * 30_000
    size = journal.append(moves).offset
    assert journal.wants_compaction
    journal.close()
    return size
