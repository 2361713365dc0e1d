"""One replica in front of one registry for all of these tests; each test has content of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.conformance.forms import COUNTED, FAILING, UPSTREAM, WITH_PORT
from tests.conformance.wire import Door
from tests.replica import NO_PREFETCH, Replica, free_port
from tests.upstream import Image, Upstream

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def registry() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture(scope="session")
def replica(registry: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    upstreams = {
        "docker.io": registry.url,
        UPSTREAM: registry.url,
        COUNTED: registry.url,
        WITH_PORT: registry.url,
        **dict.fromkeys(FAILING, registry.url),
        "refused.example": f"http://127.0.0.1:{free_port()}",
        "nameless.example": "http://nowhere.invalid",
    }
    store = tmp_path_factory.mktemp("conformance") / "store"
    with Replica(store, upstreams=upstreams, settings=NO_PREFETCH) as running:
        yield running


@pytest.fixture
def upstream(registry: Upstream) -> Iterator[Upstream]:
    """Return the registry with every dial at its default and nothing counted."""
    registry.counters.clear()
    yield registry
    registry.reset()


@pytest.fixture(scope="session")
def door(replica: Replica) -> Door:
    return Door(replica.port)


@pytest.fixture
def repository() -> str:
    """Return the name of a Docker Hub repository that no other test uses."""
    return f"library/image{next(_NUMBERS)}"


@pytest.fixture
def pushed(upstream: Upstream, repository: str) -> Image:
    """Return an image that the replica has never heard of."""
    return upstream.push_image(repository, "1.0", layers=(2_000, 300_000), seed=next(_NUMBERS))


@pytest.fixture(params=["cold", "warm"])
def image(request: pytest.FixtureRequest, upstream: Upstream, door: Door, pushed: Image) -> Image:
    """Return an image that the replica has never heard of, or that it holds completely."""
    if request.param == "warm":
        door.pull(pushed)
        upstream.counters.clear()
    return pushed
