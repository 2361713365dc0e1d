"""What most of these tests need: a registry, a replica in front of it, and content that no other test has."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pytest

from tests.chaos.reader import PATIENCE, Reader, get
from tests.replica import NO_PREFETCH, Replica
from tests.upstream import Image, Upstream

KIB = 2**10
MIB = 2**20
TAIL = 64 * KIB


@dataclass(frozen=True)
class Scene:
    """A registry, a replica, and the name of a repository; `host` is the registry's name, Docker Hub's if empty."""

    upstream: Upstream
    replica: Replica
    repository: str
    host: str = ""

    @property
    def seed(self) -> int:
        """Return a number that depends on the repository's name."""
        return zlib.crc32(self.repository.encode())

    def push(self, size: int) -> str:
        """Push a blob of `size` bytes that depend on the repository's name, and return its digest."""
        return self.upstream.push_random_blob(self.repository, size, self.seed)

    def push_image(self, *layers: int, platforms: Sequence[str] = ("linux/amd64",), tag: str = "1") -> Image:
        """Push an image with layers of these sizes."""
        return self.upstream.push_image(self.repository, tag, platforms, layers, self.seed, raw=True)

    @property
    def base(self) -> str:
        """Return the path of the repository."""
        return f"/v2/{self.host}/{self.repository}" if self.host else f"/v2/{self.repository}"

    def target(self, digest: str) -> str:
        """Return the path of a blob."""
        return f"{self.base}/blobs/{digest}"

    def read(self, digest: str, headers: Mapping[str, str] | None = None) -> Reader:
        """Begin to read a blob."""
        return Reader(self.replica.url, self.target(digest), headers)

    def get(self, digest: str, headers: Mapping[str, str] | None = None, seconds: float = PATIENCE) -> Reader:
        """Read a blob to the end of its answer."""
        return get(self.replica.url, self.target(digest), headers, seconds)

    def manifest(self, reference: str) -> Reader:
        """Read a manifest."""
        return get(self.replica.url, f"{self.base}/manifests/{reference}")

    def assert_fetched_once(self, digest: str, size: int) -> None:
        """Check that the registry sent each byte of a blob exactly once."""
        assert self.upstream.counters.overlaps(digest) == 0, self.upstream.counters.spans(digest)
        assert self.upstream.counters.sent(digest) == size, self.upstream.counters.spans(digest)


def eventually(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.02)


def name_of(request: pytest.FixtureRequest) -> str:
    """Return a repository name made of the test's own."""
    return f"library/image{zlib.crc32(request.node.nodeid.encode())}"


@pytest.fixture(scope="session")
def registry() -> Iterator[Upstream]:
    """Run one registry for all tests of a folder."""
    with Upstream() as running:
        yield running


@pytest.fixture(scope="session")
def shared_replica(registry: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """Run one replica for all tests of a folder."""
    store = tmp_path_factory.mktemp("replica") / "store"
    with Replica(store, upstreams={"docker.io": registry.url}, settings=NO_PREFETCH) as running:
        yield running


@pytest.fixture
def scene(registry: Upstream, shared_replica: Replica, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Return a scene with every dial at its default and nothing counted."""
    registry.counters.clear()
    yield Scene(registry, shared_replica, name_of(request))
    registry.reset()
