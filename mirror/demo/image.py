"""A real image for two platforms, made of pseudo-random files: the same bytes and digests on every run."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from collections.abc import Mapping
from typing import NamedTuple

from mirror.oci import media_types
from mirror.oci.digest import Digest

PLATFORMS = ("linux/amd64", "linux/arm64")

_MIB = 2**20
_LAYERS = {"base": 12 * _MIB, "runtime": 6 * _MIB, "application": 2 * _MIB}
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class Manifest(NamedTuple):
    """An index or a platform's manifest, as a registry keeps it."""

    media_type: str
    body: bytes


class Image(NamedTuple):
    """Everything that a registry holds of one tag."""

    top: Digest
    """The digest of the index."""
    manifests: Mapping[Digest, Manifest]
    blobs: Mapping[Digest, bytes]

    @property
    def size(self) -> int:
        """Bytes of all blobs of all platforms."""
        return sum(map(len, self.blobs.values()))


def build() -> Image:
    """Return an image of three layers for each of `PLATFORMS`, about 40 MiB in all."""
    manifests: dict[Digest, Manifest] = {}
    blobs: dict[Digest, bytes] = {}
    entries = []
    for platform in PLATFORMS:
        system, _, architecture = platform.partition("/")
        manifest = _manifest(platform, blobs)
        entries.append(_add(manifests, manifest) | {"platform": {"os": system, "architecture": architecture}})
    index = Manifest(
        media_types.OCI_INDEX, _json({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries})
    )
    _add(manifests, index)
    return Image(Digest.of(index.body), manifests, blobs)


def _manifest(platform: str, blobs: dict[Digest, bytes]) -> Manifest:
    """Return the manifest of one platform, its config and layers put into `blobs`."""
    layers = []
    contents = []
    for name, size in _LAYERS.items():
        content = _tar(name, size, random.Random(f"{platform} {name}"))
        layer = gzip.compress(content, compresslevel=0, mtime=0)
        contents.append(Digest.of(content))
        layers.append(_describe(_LAYER, layer))
        blobs[Digest.of(layer)] = layer
    system, _, architecture = platform.partition("/")
    config = _json(
        {"os": system, "architecture": architecture, "config": {}, "rootfs": {"type": "layers", "diff_ids": contents}}
    )
    blobs[Digest.of(config)] = config
    body = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": _describe(_CONFIG, config),
        "layers": layers,
    }
    return Manifest(media_types.OCI_MANIFEST, _json(body))


def _tar(name: str, size: int, source: random.Random) -> bytes:
    """Return a tar archive of `size` bytes of random content in files of 1 MiB."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for number in range(size // _MIB):
            entry = tarfile.TarInfo(f"opt/{name}/{number}.bin")
            entry.size = _MIB
            tar.addfile(entry, io.BytesIO(source.randbytes(_MIB)))
    return archive.getvalue()


def _add(manifests: dict[Digest, Manifest], manifest: Manifest) -> dict[str, object]:
    manifests[Digest.of(manifest.body)] = manifest
    return _describe(manifest.media_type, manifest.body)


def _describe(media_type: str, body: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": Digest.of(body), "size": len(body)}


def _json(document: dict[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
