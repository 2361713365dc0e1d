"""A store that was killed at any moment opens again, and holds nothing wrong.

The writing process is stopped by the kernel, its folder copied, and set going again: each copy is what a kill at that
moment would have left.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store import Content
from tests.store.stock import REPOSITORY, Image, missing, opened

MOMENTS = 8
SECONDS = 60.0


class Scribe:
    """The writing process."""

    def __init__(self, path: Path) -> None:
        command = (sys.executable, "-m", "tests.store.scribe", str(path))
        self._process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        self._path = path

    def wait_for_blobs(self, count: int) -> None:
        """Wait until at least so many content files are there."""
        deadline = time.monotonic() + SECONDS
        while sum(1 for _ in (self._path / "content").rglob("*/*/*")) < count:
            assert self._process.poll() is None, "the writing process has ended"
            assert time.monotonic() < deadline, "the writing process is stuck"
            time.sleep(0.005)

    def copy(self, target: Path) -> None:
        """Copy the store as it is at this moment."""
        self._process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        shutil.copytree(self._path, target)
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(SECONDS)


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return copies of one store at random moments while it was written, the last one after a kill."""
    folder = tmp_path_factory.mktemp("moments")
    scribe = Scribe(folder / "live")
    chance = random.Random(1)
    copies = []
    try:
        for number in range(MOMENTS):
            scribe.wait_for_blobs(2 + number * 6)
            time.sleep(chance.random() * 0.02)  # anywhere within a change: what is shown holds at every moment
            scribe.copy(folder / f"moment{number}")
            copies.append(folder / f"moment{number}")
    finally:
        scribe.kill()
    return [*copies, folder / "live"]


def held_images(path: Path) -> int:
    """Return for how many images in a row there is content under `path`."""
    content = Content(path / "content")
    number = 0
    while any(content.size(digest) is not None for digest, _ in Image(number).blobs):
        number += 1
    return number


@pytest.mark.parametrize("number", range(MOMENTS + 1))
@pytest.mark.parametrize("with_index", [True, False], ids=["index", "no index"])
async def test_opens_and_serves__as_it_was_killed(
    number: int, with_index: bool, moments: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "store"
    shutil.copytree(moments[number], path)
    if not with_index:
        shutil.rmtree(path / "index")
    for file in (path / "content").rglob("*/*/*"):
        assert Digest.of(file.read_bytes()).hex == file.name
    known = []
    async with opened(path) as store:
        assert list((path / "partial").glob("*.manifest")) == []
        for image in map(Image, range(held_images(path) + 20)):
            state = store.shelf.tag(REPOSITORY, image.tag)
            assert state in (None, image.state)
            assert store.shelf.manifest(image.digest) in (None, image.body)
            known.append(state is not None)
        assert known == sorted(known, reverse=True), "a later change outlived an earlier one"
        for image in map(Image, range(len(known))):
            image.put(store)
    async with opened(path) as store:
        assert missing(store, [Image(each) for each in range(len(known))]) == []


async def test_tells_the_same__with_its_index_and_without(moments: list[Path], tmp_path: Path) -> None:
    told = []
    for number in range(2):
        path = tmp_path / f"store{number}"
        shutil.copytree(moments[MOMENTS // 2], path)
        if number:
            shutil.rmtree(path / "index")
        async with opened(path) as store:
            images = map(Image, range(held_images(path) + 20))
            told.append([image.missing(store) for image in images if store.content.size(image.digest) is not None])
    assert told[0] == told[1] != []
