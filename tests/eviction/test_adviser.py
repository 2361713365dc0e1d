"""The adviser, beside a store that is used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.config.units import Size
from mirror.eviction import Advice, Adviser
from mirror.eviction.ghost import Ghost
from mirror.eviction.popularity import Popularity
from mirror.oci.digest import Digest
from mirror.store import Store
from tests.store.stock import opened, put_blob

LOW_MARK = Size(0.9, is_share=True)
HELD, COMING = b"held" * 1000, b"coming" * 1000


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.eviction.adviser._EVERY_SECONDS", 0.01)
    monkeypatch.setattr("mirror.store.usage._GATHERED_EVERY_SECONDS", 0.01)


async def _until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, for at most twenty seconds."""
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never held")


async def _advised(store: Store) -> Adviser:
    adviser = Adviser(store, LOW_MARK, Popularity())
    adviser.start()
    return adviser


async def test_counts_each_use_with_its_size__and_what_was_held_from_the_start_as_a_hit(tmp_path: Path) -> None:
    async with opened(tmp_path / "store") as store:
        put_blob(store, Digest.of(HELD), HELD)
        adviser = await _advised(store)
        store.shelf.touch(Digest.of(HELD))
        store.shelf.touch(Digest.of(HELD))
        await _until(lambda: adviser.advice().requested > 0)
        assert adviser.advice().requested == 2 * len(HELD)
        await adviser.close()


async def test_counts_what_is_still_on_its_way__once_it_has_come(tmp_path: Path) -> None:
    async with opened(tmp_path / "store") as store:
        adviser = await _advised(store)
        store.shelf.touch(Digest.of(COMING))
        await asyncio.sleep(0.1)
        assert adviser.advice().requested == 0
        put_blob(store, Digest.of(COMING), COMING)
        await _until(lambda: adviser.advice().requested == len(COMING))
        await adviser.close()


async def test_goes_on__after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path / "store") as store:
        put_blob(store, Digest.of(HELD), HELD)
        adviser = await _advised(store)
        store.shelf.touch(Digest.of(HELD))
        await _until(lambda: adviser.advice().requested > 0)
        advice = adviser.advice()
        await adviser.close()
        again = await _advised(store)
        await _until(lambda: again.advice() == advice)
        store.shelf.touch(Digest.of(HELD))
        await _until(lambda: again.advice().requested == 2 * len(HELD))
        await again.close()


def _ghost(capacity: int = 10**9) -> Ghost:
    return Ghost(capacity, 0.9, Popularity())


def test_goes_on_where_the_last_one_came_to__whatever_it_saw() -> None:
    first, alone = _ghost(), _ghost()
    sizes = {Digest.of(str(number).encode()): number * 10_000 for number in range(1, 2000)}
    for when, (digest, size) in enumerate(sizes.items()):
        first.request(digest, size, when)
        alone.request(digest, size, when)
    second = _ghost()
    assert second.load(first.dump())
    assert second.advice() == alone.advice()
    for when, (digest, size) in enumerate([*reversed(sizes.items()), *sizes.items()], len(sizes)):
        second.request(digest, size, when)
        alone.request(digest, size, when)
    assert second.advice() == alone.advice()
    assert 0 < alone.advice().half < alone.advice().double < 1


def test_begins_anew__with_what_is_not_of_such_a_disk() -> None:
    known = _ghost()
    known.request(Digest.of(HELD), 10**6, 1.0)
    for data in (known.dump(), known.dump()[:-1], b"", b"popularity 1"):
        other = _ghost(2 * 10**9)
        assert not other.load(data)
        assert other.advice() == Advice()
