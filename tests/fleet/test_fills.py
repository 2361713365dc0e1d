"""One fill for the fleet: six replicas in two regions, the clock of one of them an hour off all the time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

import pytest

from tests.chaos.reader import Reader, get
from tests.fleet.crowd import Crowd, Pulled, pull
from tests.fleet.replicas import Member, Replicas
from tests.fleet.servers import Valkey, until
from tests.upstream import Image, Upstream
from tests.upstream.images import Descriptor

MIB = 2**20
REGIONS = ("west", "west", "west", "east", "east", "east")
LAYERS = (12 * MIB, 4 * MIB, MIB, 100_000)
_DELAY = 0.02
_numbers = itertools.count(1)


class Scene:
    """The fleet, its Redis and the registry; every image is a new one."""

    def __init__(self, upstream: Upstream, valkey: Valkey, replicas: Replicas) -> None:
        self.upstream = upstream
        self.valkey = valkey
        self.replicas = replicas
        self.crowds: list[Crowd] = []

    def push(self, layers: Sequence[int] = LAYERS) -> Image:
        """Push an image that nobody has."""
        number = next(_numbers)
        image = self.upstream.push_image(f"library/fleet{number}", "1", ("linux/amd64",), layers, number, raw=True)
        self.upstream.counters.clear()
        self.replicas.line.passed = 0
        return image

    def crowd(self, image: Image, members: Sequence[Member], each: int) -> Crowd:
        """Let so many clients at each of the replicas pull an image."""
        urls = [member.url for _ in range(each) for member in members]
        self.crowds.append(Crowd(urls, image.repository, image.tag).start())
        return self.crowds[-1]

    def meet(self) -> None:
        """Wait until all replicas have met in a Redis that is new."""
        until(lambda: self._met() == len(REGIONS), "all beat")
        self.replicas.wait()

    def _met(self) -> int:
        with self.valkey.client() as client:
            return sum(client.zcard(key) for key in client.scan_iter(match="*live"))

    def share(self, image: Image) -> float:
        """Return how often the registry sent the image, in blob bytes."""
        return self.upstream.counters.sent() / image.size

    def leader(self) -> Member:
        """Return the replica that has most from the registry since it began."""
        return max(self.replicas.running, key=lambda each: each.metric("layover_upstream_bytes_total"))

    def reached(self, image: Image, share: float) -> None:
        """Wait until the registry has sent such a share of an image."""
        until(lambda: self.share(image) >= share, f"{share} of the image was sent")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("fleet")
    with Upstream() as upstream, Valkey(folder / "valkey") as valkey:
        replicas = Replicas(folder, REGIONS, valkey.url, {"docker.io": upstream.url}, delay=_DELAY).prepare()
        try:
            replicas[4].shift_clock(3600.0)
            replicas.start()
            yield Scene(upstream, valkey, replicas)
        finally:
            replicas.stop()


@pytest.fixture
def scene(fleet: Scene) -> Iterator[Scene]:
    fleet.crowds.clear()
    yield fleet
    for crowd in fleet.crowds:
        crowd.kill()
    fleet.upstream.reset()
    fleet.replicas.line.heal()
    fleet.replicas.start()


def assert_right(pulled: Sequence[Pulled], image: Image) -> None:
    assert [each for each in pulled if each.error] == []
    assert {each.received for each in pulled} == {image.size}


def assert_sent_once(scene: Scene, blobs: Sequence[Descriptor]) -> None:
    for blob in blobs:
        assert scene.upstream.counters.sent(blob.digest) == blob.size, scene.upstream.counters.spans(blob.digest)


def assert_fetched_once(scene: Scene, image: Image) -> None:
    assert_sent_once(scene, image.blobs)
    assert scene.upstream.counters.requests("GET", "manifest") == len(image.manifests) + 1


def _holds(scene: Scene, member: Member, digest: str) -> bool:
    return member in scene.replicas.holding(digest)


def _all_hold(scene: Scene, digest: str) -> bool:
    return len(scene.replicas.holding(digest)) == len(REGIONS)


def test_pull__cold__by_crowds_in_two_regions(scene: Scene) -> None:
    image = scene.push()
    pulled = scene.crowd(image, list(scene.replicas), 10).result()
    assert_right(pulled, image)
    assert_fetched_once(scene, image)
    assert scene.replicas.line.passed <= 1.1 * image.size
    for blob in image.blobs:
        until(partial(_all_hold, scene, blob.digest), "everybody has it")


def test_pull__held_by_a_sibling(scene: Scene) -> None:
    image = scene.push()
    assert_right(pull([scene.replicas[0].url], image.repository, image.tag), image)
    for member in (scene.replicas[1], scene.replicas[3], scene.replicas[4]):
        assert_right(pull([member.url], image.repository, image.tag), image)
    assert_fetched_once(scene, image)
    assert scene.replicas.line.passed <= 1.1 * image.size


@pytest.mark.parametrize("layers", [LAYERS, (MIB,) * 16], ids=["large", "small"])
def test_pull__the_filler_is_killed(scene: Scene, layers: Sequence[int]) -> None:
    image = scene.push(layers)
    scene.upstream.dials.blob_rate_total = 6 * MIB
    crowd = scene.crowd(image, list(scene.replicas), 3).begun()
    scene.reached(image, 0.5)
    killed = scene.leader()
    killed.kill()
    pulled = crowd.result()
    assert_right([each for each in pulled if each.url != killed.url], image)
    assert scene.share(image) <= 1.3


def test_pull__redis_is_killed(scene: Scene) -> None:
    image = scene.push()
    scene.upstream.dials.blob_rate_total = 6 * MIB
    crowd = scene.crowd(image, list(scene.replicas), 3).begun()
    scene.reached(image, 0.4)
    scene.valkey.kill()
    assert_right(crowd.result(), image)
    assert scene.share(image) <= len(REGIONS)
    scene.valkey.start()
    scene.meet()


def test_pull__redis_is_a_black_hole(scene: Scene) -> None:
    image = scene.push((MIB, 100_000))
    scene.valkey.pause()
    try:
        assert_right(scene.crowd(image, list(scene.replicas), 2).result(), image)
    finally:
        scene.valkey.restart()
    assert scene.share(image) <= len(REGIONS)
    scene.meet()


@pytest.mark.parametrize("way", ["cut", "swallow"])
def test_pull__the_regions_are_parted(scene: Scene, way: str) -> None:
    image = scene.push()
    scene.upstream.dials.blob_rate_total = 6 * MIB
    crowd = scene.crowd(image, list(scene.replicas), 2).begun()
    scene.reached(image, 0.4)
    getattr(scene.replicas.line, way)()
    assert_right(crowd.result(), image)
    assert scene.share(image) <= 2


def test_pull__a_sibling_lies(scene: Scene) -> None:
    image = scene.push((4 * MIB, 9 * MIB))
    honest, liar, asking = scene.replicas[3], scene.replicas[0], scene.replicas[1]
    for member in (honest, liar):
        assert_right(pull([member.url], image.repository, image.tag), image)
    for layer in image.layers:
        until(partial(_holds, scene, liar, layer.digest), "the liar has it")
        name = layer.digest.partition(":")[2]
        with (liar.store / "content" / "sha256" / name[:2] / name).open("r+b") as file:
            file.seek(layer.size // 2)
            file.write(b"something else")
    misled = pull([asking.url], image.repository, image.tag)
    assert "bytes for" not in misled[0].error, "what is wrong was delivered whole"
    until(lambda: _holds(scene, asking, image.layers[1].digest), "the asking replica has it")
    assert_right(pull([asking.url], image.repository, image.tag), image)
    assert scene.share(image) <= 1.01


def test_pull__held_by_a_sibling__under_a_repository_that_lacks_it(scene: Scene) -> None:
    image = scene.push((MIB,))
    assert_right(pull([scene.replicas[0].url], image.repository, image.tag), image)
    for member in (scene.replicas[1], scene.replicas[3]):
        refused = get(member.url, f"/v2/library/another/blobs/{image.layers[0].digest}")
        assert refused.status == 404, refused.beginning
    assert_right(pull([scene.replicas[1].url], image.repository, image.tag), image)
    assert scene.share(image) <= 1.01


def test_pull__the_registry_says_no__to_everybody(scene: Scene) -> None:
    image = scene.push((100,))
    missing = f"sha256:{'5' * 64}"
    readers = [Reader(each.url, f"/v2/{image.repository}/blobs/{missing}") for each in scene.replicas]
    assert {each.wait().status for each in readers} == {404}
    assert scene.upstream.counters.requests("GET", digest=missing) <= len(REGIONS)


def test_read_range__far_ahead__of_what_a_sibling_fills(scene: Scene) -> None:
    image = scene.push((30 * MIB,))
    layer = image.layers[0]
    target = f"/v2/{image.repository}/blobs/{layer.digest}"
    scene.upstream.dials.blob_rate_total = 2 * MIB
    for member in scene.replicas:
        get(member.url, f"/v2/{image.repository}/manifests/{image.platforms[0].manifest.digest}")
    begun = [Reader(member.url, target).wait_for(MIB) for member in (scene.replicas[0], scene.replicas[3])]
    ahead = get(scene.replicas[4].url, target, {"Range": f"bytes={25 * MIB}-{25 * MIB + 99}"})
    assert ahead.beginning == scene.upstream.content(layer.digest)[25 * MIB : 25 * MIB + 100]
    assert not any(each.has_ended for each in begun), [(each.status, each.received, each.error) for each in begun]
    scene.upstream.dials.blob_rate_total = 6 * MIB  # much quicker ones have a connection that stays slow replaced
    assert [each.wait().digest for each in begun] == [layer.digest] * 2
    assert_sent_once(scene, [layer])
