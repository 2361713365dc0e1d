"""What clients ask for, made from a seed: families of traces, and traces from a file."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random

from mirror.oci.digest import Digest
from tests.benchmarks.eviction.images import Image, Registry, zipf_weights

# Every trace begins at this second since the epoch.
BEGIN = 1_700_000_000.0
_HOUR = 3600.0
_DAY = 24 * _HOUR
# A machine that pulls an image has its base from another one before, this often.
_HAS_BASE = 0.3
# From the first byte of a pull to its last request.
_PULL_SECONDS = 20.0


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One GET of one object: when (seconds), its number and its size in bytes, and by whose client.

    `client` says from where it came: replica `client % n` of a fleet of n answers it.
    """

    at: float
    key: int
    size: int
    client: int = 0


@dataclasses.dataclass(frozen=True)
class Trace:
    """Requests in the order of time."""

    name: str
    requests: Sequence[Request]

    @functools.cached_property
    def digests(self) -> Mapping[int, Digest]:
        """A digest for each object."""
        return {key: Digest.of(f"object {key}".encode()) for key in {request.key for request in self.requests}}

    @functools.cached_property
    def working_set(self) -> int:
        """Bytes of all objects that are asked for."""
        return sum({request.key: request.size for request in self.requests}.values())

    @functools.cached_property
    def bytes(self) -> int:
        """Bytes of all answers."""
        return sum(request.size for request in self.requests)


@dataclasses.dataclass(frozen=True, slots=True)
class _Pull:
    at: float
    image: Image
    client: int


class _Clients:
    """Pulls as they are made, by clients anywhere."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._pulls: list[_Pull] = []

    def pull(self, at: float, image: Image, client: int | None = None) -> None:
        chosen = self._random.randrange(1 << 16) if client is None else client
        self._pulls.append(_Pull(BEGIN + at, image, chosen))

    def requests(self) -> list[Request]:
        """Return the manifest's request and then the layers', for all pulls in the order of time."""
        found = itertools.chain.from_iterable(self._asked(pull) for pull in self._pulls)
        return sorted(found, key=lambda request: request.at)

    def _asked(self, pull: _Pull) -> Iterator[Request]:
        has_base = self._random.random() < _HAS_BASE
        blobs = [blob for blob in pull.image.blobs if not has_base or blob not in pull.image.base]
        for number, blob in enumerate(blobs):
            at = pull.at + _PULL_SECONDS * number / len(blobs)
            yield Request(at, blob.key, blob.size, pull.client)


class _Catalog:
    """Repositories of which the first are pulled most, each with its present image."""

    def __init__(self, random: Random, repositories: int, skew: float) -> None:
        self._random = random
        self.registry = Registry(random, max(repositories // 25, 4))
        self.images = [self.registry.image() for _ in range(repositories)]
        self._shares = list(itertools.accumulate(zipf_weights(repositories, skew)))

    def draw(self) -> int:
        return self._random.choices(range(len(self.images)), cum_weights=self._shares)[0]

    def drift(self) -> None:
        """One repository becomes better known, another takes its place."""
        one, other = self.draw(), self._random.randrange(len(self.images))
        self.images[one], self.images[other] = self.images[other], self.images[one]

    def release(self, number: int) -> None:
        self.images[number] = self.registry.release(self.images[number])


def zipf_with_drift(random: Random, scale: float) -> list[Request]:
    """Everybody pulls what is popular; day by day that is something else, and there are new releases."""
    catalog, clients = _Catalog(random, int(1_200 * scale), 0.9), _Clients(random)
    pulls, days = int(12_000 * scale), 14
    for at in _moments(random, pulls, 0.0, days * _DAY):
        clients.pull(at, catalog.images[catalog.draw()])
        if random.random() < 0.02:
            catalog.drift()
        if random.random() < 0.03:
            catalog.release(catalog.draw())
    return clients.requests()


def ci_storms(random: Random, scale: float) -> list[Request]:
    """A commit starts a matrix of jobs which pull the same few images within minutes; projects come and go."""
    catalog, clients = _Catalog(random, int(500 * scale), 0.8), _Clients(random)
    days = 10
    for begins in _moments(random, int(450 * scale), 0.0, days * _DAY):
        project = catalog.draw()
        toolchain = (project * 7) % len(catalog.images)
        for _ in range(random.randint(4, 40)):
            at = begins + random.expovariate(1 / 240.0)
            clients.pull(at, catalog.images[project])
            if random.random() < 0.5:
                clients.pull(at + 30, catalog.images[toolchain])
        if random.random() < 0.3:
            catalog.release(project)
        if random.random() < 0.3:
            catalog.drift()
    for at in _moments(random, int(1_500 * scale), 0.0, days * _DAY):
        clients.pull(at, catalog.images[catalog.draw()])
    return clients.requests()


def nightly_rebuilds(random: Random, scale: float) -> list[Request]:
    """Every night some of the images are built anew and pulled by a test; by day everybody pulls what there is."""
    catalog, clients = _Catalog(random, int(600 * scale), 0.9), _Clients(random)
    for day in range(14):
        night = day * _DAY
        for number in random.sample(range(len(catalog.images)), int(len(catalog.images) * 0.15)):
            catalog.release(number)
            clients.pull(night + random.uniform(0.0, 4 * _HOUR), catalog.images[number])
        for at in _moments(random, int(800 * scale), night + 5 * _HOUR, night + 23 * _HOUR):
            clients.pull(at, catalog.images[catalog.draw()])
    return clients.requests()


def one_hit_floods(random: Random, scale: float) -> list[Request]:
    """Everyday pulls, and again and again a scanner which walks through thousands of images that nobody else pulls."""
    catalog, clients = _Catalog(random, int(500 * scale), 0.9), _Clients(random)
    days = 14
    for at in _moments(random, int(8_000 * scale), 0.0, days * _DAY):
        clients.pull(at, catalog.images[catalog.draw()])
        if random.random() < 0.02:
            catalog.release(catalog.draw())
    for begins in _moments(random, 12, 0.0, days * _DAY):
        scanner = random.randrange(1 << 16)
        for number in range(int(random.uniform(100, 350) * scale)):
            clients.pull(begins + 40 * number, catalog.registry.image(), scanner)
    return clients.requests()


FAMILIES: dict[str, Callable[[Random, float], list[Request]]] = {
    "zipf": zipf_with_drift,
    "ci": ci_storms,
    "nightly": nightly_rebuilds,
    "floods": one_hit_floods,
}


def generate(family: str, seed: int, scale: float = 1.0) -> Trace:
    """Return the trace of a family for a seed; `scale` 1 has about a hundred thousand requests."""
    return Trace(family, FAMILIES[family](Random(f"{family} {seed}"), scale))


def _moments(random: Random, count: int, begin: float, end: float) -> list[float]:
    return sorted(random.uniform(begin, end) for _ in range(count))
