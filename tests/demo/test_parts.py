"""The demo's registry, image and client against each other, with no mirror between them."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from mirror.demo.client import PullError, pull
from mirror.demo.image import PLATFORMS, Image, build
from mirror.demo.registry import Cost, Registry
from mirror.oci.digest import Digest


@pytest.fixture(scope="module")
def image() -> Image:
    return build()


@pytest.fixture
async def registry(image: Image) -> AsyncIterator[Registry]:
    running = Registry(image, "shop/app", "1.0")
    await running.start()
    yield running
    await running.stop()


def ignore(_digest: Digest, _received: int, _size: int) -> None:
    """Watch nothing."""


def test_builds_the_same_image__every_time(image: Image) -> None:
    assert build().top == image.top
    assert 39 * 2**20 < image.size < 41 * 2**20


def test_builds_layers_that_unpack__to_what_the_config_says(image: Image) -> None:
    index = json.loads(image.manifests[image.top].body)
    assert len(index["manifests"]) == len(PLATFORMS)
    for entry in index["manifests"]:
        manifest = json.loads(image.manifests[entry["digest"]].body)
        config = json.loads(image.blobs[manifest["config"]["digest"]])
        unpacked = [Digest.of(gzip.decompress(image.blobs[layer["digest"]])) for layer in manifest["layers"]]
        assert unpacked == config["rootfs"]["diff_ids"]
        assert len(unpacked) == 3


async def test_counts_requests_and_bytes__of_a_pull(registry: Registry) -> None:
    progress: dict[Digest, tuple[int, int]] = {}
    pulled = await pull(
        f"{registry.url}/v2/shop/app", "1.0", PLATFORMS[0], lambda digest, *far: progress.update({digest: far})
    )
    assert pulled.digests == 6  # index, manifest, config, three layers
    assert registry.take_cost() == Cost(requests=7, sent=pulled.size)
    assert len(progress) == 4
    assert all(received == size for received, size in progress.values())
    assert registry.take_cost() == Cost(requests=0, sent=0)


async def test_answers_a_range__with_those_bytes(registry: Registry, image: Image) -> None:
    digest, blob = next(iter(image.blobs.items()))
    url = f"{registry.url}/v2/shop/app/blobs/{digest}"
    async with aiohttp.ClientSession() as session:
        async with session.get(url, headers={"Range": "bytes=10-19"}) as answer:
            assert answer.status == 206
            assert answer.headers["Content-Range"] == f"bytes 10-19/{len(blob)}"
            assert await answer.read() == blob[10:20]
        async with session.get(url, headers={"Range": f"bytes={len(blob)}-"}) as answer:
            assert answer.status == 416


async def test_refuses_a_pull__with_a_corrupt_layer(image: Image) -> None:
    damaged = {digest: bytes([blob[0] ^ 1]) + blob[1:] for digest, blob in image.blobs.items()}
    registry = Registry(image._replace(blobs=damaged), "shop/app", "1.0")
    await registry.start()
    try:
        with pytest.raises(PullError, match="other bytes"):
            await pull(f"{registry.url}/v2/shop/app", "1.0", PLATFORMS[0], ignore)
    finally:
        await registry.stop()


async def test_says_what_failed__when_the_registry_is_gone(registry: Registry) -> None:
    url = registry.url
    await registry.stop()
    with pytest.raises(PullError, match=r"HEAD manifests/1\.0 broke off"):
        await pull(f"{url}/v2/shop/app", "1.0", PLATFORMS[0], ignore)


async def test_says_what_failed__for_an_unknown_tag(registry: Registry) -> None:
    with pytest.raises(PullError, match="was answered 404"):
        await pull(f"{registry.url}/v2/shop/app", "2.0", PLATFORMS[0], ignore)
