"""Siblings that say nothing any more: what is sent to them is swallowed, or they stand still. Redis answers all."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial

import pytest

from tests.chaos.reader import Reader, get
from tests.fleet.crowd import pull
from tests.fleet.replicas import Member, Replicas
from tests.fleet.servers import Valkey, until
from tests.replica import NO_PREFETCH
from tests.upstream import Image, Upstream

_MIB = 2**20
_DELAY = 0.02
_GIVEN_UP = "a sibling failed"


class Scene:
    """Two replicas in the west, one in the east, and an image that two pulled and the last one lacks."""

    def __init__(self, upstream: Upstream, replicas: Replicas) -> None:
        self.upstream = upstream
        self.replicas = replicas
        self.west, self.near, self.east = replicas
        self._images = 0

    def push(self, *layers: int) -> Image:
        """Push an image that nobody has."""
        self._images += 1
        number = self._images
        image = self.upstream.push_image(f"library/silent{number}", "1", ("linux/amd64",), layers, number, raw=True)
        self.upstream.counters.clear()
        return image

    def held(self) -> Image:
        """Return an image that one replica in the west has."""
        image = self.push(100_000, 1000)
        pulls(self.west, image)
        for blob in image.blobs:
            until(partial(self.holds, self.west, blob.digest), "it is held")
        self.upstream.counters.clear()
        return image

    def holds(self, member: Member, digest: str) -> bool:
        """Say whether a replica has a digest."""
        return member in self.replicas.holding(digest)


def pulls(member: Member, image: Image) -> None:
    """Pull an image, all of it right."""
    (pulled,) = pull([member.url], image.repository, image.tag)
    assert (pulled.error, pulled.received) == ("", image.size)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("silence")
    with (
        Upstream() as upstream,
        Valkey(folder / "valkey") as valkey,
        Replicas(
            folder,
            ("west", "west", "east"),
            valkey.url,
            {"docker.io": upstream.url},
            delay=_DELAY,
            settings=NO_PREFETCH,
        ) as replicas,
    ):
        yield Scene(upstream, replicas)


@pytest.fixture
def scene(fleet: Scene) -> Iterator[Scene]:
    yield fleet
    fleet.upstream.reset()
    fleet.replicas.line.heal()
    fleet.replicas.line.delay = _DELAY


def test_pull__held_on_the_other_side_of_the_world__from_there(scene: Scene) -> None:
    image = scene.held()
    scene.replicas.line.delay = 0.2
    pulls(scene.east, image)
    assert scene.upstream.counters.sent() == 0
    assert _GIVEN_UP not in scene.east.log.read_text()


def test_pull__held_where_all_is_swallowed__once_in_vain_and_then_from_the_registry(scene: Scene) -> None:
    images = [scene.held() for _ in range(3)]
    scene.replicas.line.swallow()
    pulls(scene.east, images[0])
    given_up = scene.east.log.read_text().count(_GIVEN_UP)
    for image in images[1:]:
        pulls(scene.east, image)
        assert scene.upstream.counters.sent() >= image.size
    assert scene.east.log.read_text().count(_GIVEN_UP) == given_up, "who is silent is not asked again"
    scene.replicas.line.heal()
    until(partial(_is_had_from_the_west, scene), "siblings that answer again are asked")


def _is_had_from_the_west(scene: Scene) -> bool:
    image = scene.held()
    pulls(scene.east, image)
    return not scene.upstream.counters.sent()


def test_read__who_fills_stands_still__another_takes_over(scene: Scene) -> None:
    image = scene.push(6 * _MIB)
    scene.upstream.dials.blob_rate_total = _MIB
    target = f"/v2/{image.repository}/blobs/{image.layers[0].digest}"
    for member in scene.replicas:
        get(member.url, f"/v2/{image.repository}/manifests/{image.platforms[0].manifest.digest}")
    Reader(scene.west.url, target).wait_for(_MIB)
    following = [Reader(each.url, target).wait_for(_MIB) for each in (scene.near, scene.east)]
    os.kill(scene.west.pid, signal.SIGSTOP)
    try:
        scene.upstream.dials.blob_rate_total = 6 * _MIB
        assert [each.wait().digest for each in following] == [image.layers[0].digest] * 2
        assert scene.upstream.counters.sent() <= 1.5 * image.size
    finally:
        os.kill(scene.west.pid, signal.SIGCONT)
