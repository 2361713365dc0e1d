"""Every client pulls through a replica, configured by what `layover client-config` prints and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.clients.client import Client, Runtime
from tests.clients.containerd import CURRENT_CONTAINERD, DEBIAN_CONTAINERD, Containerd, Kubelet
from tests.clients.distribution import Distribution
from tests.clients.docker import start_debian_docker, start_docker_with_containerd_store, start_docker_with_graphdriver
from tests.clients.image import DOCKER, MESSAGE, Image, build_image
from tests.clients.layout import Crane, Regctl
from tests.clients.podman import Buildah, Podman, Skopeo
from tests.replica import Replica, free_port
from tests.upstream import Upstream

Start = Callable[[str], Client]

HUB_ONLY: Mapping[str, Start] = MappingProxyType(
    {"docker-debian": start_debian_docker, "docker-graphdriver": start_docker_with_graphdriver}
)
EVERY_UPSTREAM: Mapping[str, Start] = MappingProxyType(
    {
        "docker-containerd-store": start_docker_with_containerd_store,
        "containerd-debian": partial(Containerd, release=DEBIAN_CONTAINERD),
        "containerd": partial(Containerd, release=CURRENT_CONTAINERD),
        "kubelet-debian": partial(Kubelet, release=DEBIAN_CONTAINERD),
        "kubelet": partial(Kubelet, release=CURRENT_CONTAINERD),
        "podman": Podman,
        "buildah": Buildah,
        "skopeo": Skopeo,
        "crane": Crane,
        "regctl": Regctl,
    }
)
ALL = MappingProxyType({**HUB_ONLY, **EVERY_UPSTREAM})

REFERENCE = "docker.io/library/sample:latest"
OTHER_REFERENCE = "quay.io/team/sample:1.0"


@pytest.fixture(scope="module")
def image() -> Image:
    return build_image()


@pytest.fixture(scope="module")
def other_image() -> Image:
    return build_image(DOCKER, seed=2)


@pytest.fixture(scope="module")
def upstream(image: Image) -> Iterator[Upstream]:
    with Upstream() as registry:
        image.push(registry.url, "library/sample", "latest")
        yield registry


@pytest.fixture
def mirror(tmp_path: Path, upstream: Upstream) -> Iterator[Replica]:
    upstream.counters.clear()
    with Replica(tmp_path / "store", upstreams={"docker.io": upstream.url}) as replica:
        yield replica
    upstream.resume()


@pytest.fixture(scope="module")
def registry_folder(other_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder from which a registry of the other kind serves the other image."""
    folder = tmp_path_factory.mktemp("distribution")
    with Distribution(folder) as registry:
        other_image.push(registry.url, "team/sample", "1.0")
    return folder


@pytest.mark.parametrize("start", ALL.values(), ids=ALL)
def test_pulls__cold_warm_and_with_the_upstream_stopped(
    start: Start, mirror: Replica, upstream: Upstream, image: Image
) -> None:
    with start(mirror.url) as client:
        pull(client, REFERENCE, image, mirror)
        for blob in image.native.blobs:
            assert upstream.counters.sent(blob.digest) == len(blob.body)

        settle(mirror)
        upstream.counters.clear()
        client.forget(REFERENCE)
        pull(client, REFERENCE, image, mirror)
        assert upstream.counters.requests() == 0

        upstream.pause()
        client.forget(REFERENCE)
        pull(client, REFERENCE, image, mirror)


@pytest.mark.parametrize("start", ALL.values(), ids=ALL)
def test_pulls_by_digest__tag_never_seen(start: Start, mirror: Replica, image: Image) -> None:
    with start(mirror.url) as client:
        pull(client, f"docker.io/library/sample@{image.digest}", image, mirror)


@pytest.mark.parametrize("start", EVERY_UPSTREAM.values(), ids=EVERY_UPSTREAM)
def test_pulls__upstream_other_than_docker_hub(
    start: Start, other_image: Image, registry_folder: Path, tmp_path: Path
) -> None:
    with (
        Distribution(registry_folder) as other,
        Replica(tmp_path / "store", upstreams={"quay.io": other.url}) as mirror,
        start(mirror.url) as client,
    ):
        pull(client, OTHER_REFERENCE, other_image, mirror)
        settle(mirror)
        other.stop()
        client.forget(OTHER_REFERENCE)
        pull(client, OTHER_REFERENCE, other_image, mirror)


@pytest.mark.parametrize("start", ALL.values(), ids=ALL)
def test_pulls_nothing__mirror_down(start: Start) -> None:
    """What the other tests pull came through the mirror: no client here reaches a registry without it."""
    with (
        start(f"http://127.0.0.1:{free_port()}") as client,
        pytest.raises(AssertionError, match=r"connection refused|retry limit exceeded"),
    ):
        client.pull(REFERENCE)


def pull(client: Client, reference: str, image: Image, mirror: Replica) -> None:
    """Pull the image whole from the mirror, look at its digest, and run it where the client can."""
    before = served(mirror)
    client.pull(reference)
    assert client.digest(reference) == image.digest
    wait_until(lambda: served(mirror) - before >= image.native.blob_bytes)
    if isinstance(client, Runtime):
        assert client.run(reference) == f"{MESSAGE}\n"


def served(mirror: Replica) -> float:
    """Return the bytes of blobs that the mirror has sent to clients."""
    return mirror.metric("layover_response_bytes_total", kind="blob")


def settle(mirror: Replica) -> None:
    """Wait until the mirror fetches nothing, for a client or ahead of one."""
    wait_until(lambda: mirror.metric("layover_fills_active") == 0)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)
