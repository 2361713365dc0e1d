"""What is pulled in the benchmarks: images whose layers exist only as a rule, so that size costs no disk."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

REPOSITORY = "library/bench"
MIB = 2**20

_OCI = "application/vnd.oci.image"
_CONFIG_SIZE = 4096
_REST = random.Random("rest").randbytes(MIB)


@dataclass(frozen=True)
class Content:
    """Something with a digest, whose bytes are made when they are asked for; `size` in bytes."""

    digest: str
    media_type: str
    size: int
    _first: bytes = field(repr=False)

    def piece(self, start: int, limit: int) -> memoryview:
        """Return at least one and at most `limit` bytes from `start` on; the bytes behind `size` mean nothing."""
        block = self._first if start < MIB else _REST
        return memoryview(block)[start % MIB : start % MIB + limit]

    @property
    def descriptor(self) -> dict[str, object]:
        """Return what a manifest says of it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class Image:
    """An image of one platform behind an index, as it is pulled: `blobs` are the config and the layers."""

    index: Content
    manifest: Content
    blobs: tuple[Content, ...]


@dataclass(frozen=True)
class Names:
    """An image by its digests alone; `size` is that of all its blobs in bytes."""

    index: str
    manifest: str
    blobs: tuple[str, ...]
    size: int


def make_image(tag: str, layers: Sequence[int]) -> Image:
    """Return an image with layers of these sizes in bytes; no two tags share a byte of content worth fetching once."""
    config = _make_blob(f"{tag} config", _CONFIG_SIZE, "config.v1+json")
    blobs = [_make_blob(f"{tag} {number}", size, "layer.v1.tar") for number, size in enumerate(layers)]
    document = {"schemaVersion": 2, "mediaType": f"{_OCI}.manifest.v1+json", "config": config.descriptor}
    manifest = _make_document(document | {"layers": [blob.descriptor for blob in blobs]})
    entry = manifest.descriptor | {"platform": {"os": "linux", "architecture": "amd64"}}
    index = _make_document({"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": [entry]})
    return Image(index, manifest, (config, *blobs))


def names(image: Image) -> Names:
    """Return the digests of an image."""
    blobs = tuple(blob.digest for blob in image.blobs)
    return Names(image.index.digest, image.manifest.digest, blobs, sum(blob.size for blob in image.blobs))


def _make_blob(seed: str, size: int, kind: str) -> Content:
    """Return a blob: a first MiB that no other seed has, and behind it the same random bytes again and again."""
    first = random.Random(seed).randbytes(min(size, MIB))
    hasher = hashlib.sha256(first)
    for _ in range(size // MIB - 1):
        hasher.update(_REST)
    if size > MIB:
        hasher.update(_REST[: size % MIB])
    return Content(f"sha256:{hasher.hexdigest()}", f"{_OCI}.{kind}", size, first)


def _make_document(document: dict[str, object]) -> Content:
    body = json.dumps(document).encode()
    return Content(f"sha256:{hashlib.sha256(body).hexdigest()}", str(document["mediaType"]), len(body), body)
