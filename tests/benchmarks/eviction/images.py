"""Images as registries hold them: layers of published sizes, a base that many share, releases that replace the top.

Sizes and counts, with where they are from, are told in docs/eviction.md.
"""

from __future__ import annotations

import dataclasses
import math
from random import Random

MiB = 2**20

# Compressed layers (Zhao and others, CLUSTER 2019): half are under 4 MB, nine of ten under 63 MB; the quantile of 0.9
# lies 1.2816 deviations above the median of a normal distribution.
_MEDIAN_BYTES = 4e6
_SPREAD = math.log(63 / 4) / 1.2816
_SMALLEST_BYTES = 32
_LARGEST_BYTES = 2**30
# An image has 9 layers in the middle, and a quarter of all 14 or more: some are its base's.
_BASE_LAYERS = (1, 4)
_OWN_LAYERS_MEDIAN = 6.0
_OWN_LAYERS_SPREAD = 0.66
_MOST_LAYERS = 100


@dataclasses.dataclass(frozen=True, slots=True)
class Blob:
    """Something of one size that a registry has under one digest, here a number."""

    key: int
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """A manifest and what it names: the config, the base's layers, its own from the bottom up."""

    manifest: Blob
    config: Blob
    base: tuple[Blob, ...]
    own: tuple[Blob, ...]

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """In the order in which a runtime asks for them."""
        return (self.manifest, self.config, *self.base, *self.own)


class Registry:
    """Makes images. The same random source makes the same ones."""

    def __init__(self, random: Random, bases: int) -> None:
        """Begin with so many bases, of which few carry most images."""
        self._random = random
        self._keys = 0
        self._bases = [self._layers(random.randint(*_BASE_LAYERS)) for _ in range(bases)]
        self._shares = zipf_weights(bases, 1.0)

    def image(self) -> Image:
        """Return a new repository's first image."""
        base = self._random.choices(self._bases, self._shares)[0]
        count = round(_OWN_LAYERS_MEDIAN * math.exp(self._random.gauss(0.0, _OWN_LAYERS_SPREAD)))
        return self._assemble(base, self._layers(min(max(count, 1), _MOST_LAYERS)))

    def release(self, image: Image) -> Image:
        """Return the next image of a repository: the base and the lower part are as they were, the top is new."""
        kept = self._random.randint(len(image.own) // 2, len(image.own) - 1)
        fresh = tuple(self._blob(self._resized(layer.size)) for layer in image.own[kept:])
        return self._assemble(image.base, image.own[:kept] + fresh)

    def _assemble(self, base: tuple[Blob, ...], own: tuple[Blob, ...]) -> Image:
        layers = len(base) + len(own)
        manifest = self._blob(500 + 150 * layers)
        return Image(manifest, self._blob(self._random.randint(1_500, 4_000) + 300 * layers), base, own)

    def _layers(self, count: int) -> tuple[Blob, ...]:
        return tuple(self._blob(self._layer_size()) for _ in range(count))

    def _layer_size(self) -> int:
        size = _MEDIAN_BYTES * math.exp(self._random.gauss(0.0, _SPREAD))
        return int(min(max(size, _SMALLEST_BYTES), _LARGEST_BYTES))

    def _resized(self, size: int) -> int:
        return max(int(size * self._random.uniform(0.9, 1.1)), _SMALLEST_BYTES)

    def _blob(self, size: int) -> Blob:
        self._keys += 1
        return Blob(self._keys, size)


def zipf_weights(count: int, skew: float) -> list[float]:
    """Return how often each of so many is asked for, the first most."""
    return [1.0 / (rank + 1) ** skew for rank in range(count)]
