"""What is pulled in the benchmarks: large blobs that exist only as a rule, and a manifest that names them."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, field

REPOSITORY = "library/bench"
MIB = 2**20

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True)
class Content:
    """Something with a digest, whose bytes are made when they are asked for; `size` in bytes."""

    digest: str
    media_type: str
    size: int
    _blocks: tuple[bytes, ...] = field(repr=False)

    def piece(self, start: int, limit: int) -> bytes:
        """Return at least one and at most `limit` bytes from `start` on."""
        number, offset = divmod(start, MIB)
        block = self._blocks[min(number, len(self._blocks) - 1)]
        return block[offset : offset + limit]


def make_blob(size: int) -> Content:
    """Return a blob of whole MiB: random bytes that repeat, behind a first block that no other size has."""
    source = random.Random(size)
    first, rest = source.randbytes(MIB), random.Random("rest").randbytes(MIB)
    hasher = hashlib.sha256(first)
    for _ in range(size // MIB - 1):
        hasher.update(rest)
    return Content(f"sha256:{hasher.hexdigest()}", "application/octet-stream", size, (first, rest))


def make_manifest(blobs: list[Content]) -> Content:
    """Return a manifest with these blobs as its layers."""
    layers = [{"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size} for blob in blobs]
    document = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": layers[0], "layers": layers}
    body = json.dumps(document).encode()
    return Content(f"sha256:{hashlib.sha256(body).hexdigest()}", _MANIFEST, len(body), (body,))
