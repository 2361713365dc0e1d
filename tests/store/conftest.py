"""A shelf of images that is made once, and copied by whoever damages it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.store.stock import Image, stocked


class Stocked(NamedTuple):
    """A closed store and what is in it."""

    path: Path
    images: list[Image]


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Stocked:
    """Return a store that no test may touch."""
    path = tmp_path_factory.mktemp("original") / "store"
    return Stocked(path, asyncio.run(stocked(path, 40)))


@pytest.fixture
def stock(original: Stocked, tmp_path: Path) -> Stocked:
    """Return a copy of the store for one test."""
    path = tmp_path / "store"
    shutil.copytree(original.path, path)
    return Stocked(path, original.images)
