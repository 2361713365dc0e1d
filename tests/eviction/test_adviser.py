"""The adviser, beside a store that is used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.config.units import Size
from mirror.eviction import Adviser
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
