"""Images made to measure: deterministic, incompressible, and valid enough for a real runtime to unpack."""

from __future__ import annotations

import hashlib
import json
import random
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.upstream.storage import Manifest, Storage

Style = Literal["oci", "docker"]

_BLOCK = 2**18
_TYPES: dict[Style, dict[str, str]] = {
    "oci": {
        "index": "application/vnd.oci.image.index.v1+json",
        "manifest": "application/vnd.oci.image.manifest.v1+json",
        "config": "application/vnd.oci.image.config.v1+json",
        "layer": "application/vnd.oci.image.layer.v1.tar+gzip",
    },
    "docker": {
        "index": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifest": "application/vnd.docker.distribution.manifest.v2+json",
        "config": "application/vnd.docker.container.image.v1+json",
        "layer": "application/vnd.docker.image.rootfs.diff.tar.gzip",
    },
}


@dataclass(frozen=True)
class Descriptor:
    """What a manifest says of a piece of content; `size` in bytes."""

    digest: str
    size: int
    media_type: str

    @property
    def document(self) -> dict[str, object]:
        """Return the descriptor as it stands in a manifest."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class PlatformImage:
    """What a client of one platform pulls."""

    platform: str
    manifest: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Return the config and the layers."""
        return (self.config, *self.layers)

    @property
    def size(self) -> int:
        """Return the sum of the blobs' sizes in bytes."""
        return sum(blob.size for blob in self.blobs)


@dataclass(frozen=True)
class Image:
    """A pushed image of one or several platforms. Platforms share no layer."""

    repository: str
    tag: str
    index: Descriptor
    platforms: tuple[PlatformImage, ...]

    @property
    def manifests(self) -> tuple[Descriptor, ...]:
        """Return each platform's manifest."""
        return tuple(one.manifest for one in self.platforms)

    @property
    def configs(self) -> tuple[Descriptor, ...]:
        """Return each platform's config."""
        return tuple(one.config for one in self.platforms)

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """Return the layers of all platforms, in order."""
        return tuple(layer for one in self.platforms for layer in one.layers)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Return every config and layer."""
        return tuple(blob for one in self.platforms for blob in one.blobs)

    @property
    def size(self) -> int:
        """Return the sum of the sizes of all blobs, of all platforms, in bytes."""
        return sum(one.size for one in self.platforms)

    def platform(self, name: str) -> PlatformImage:
        """Return the part of one platform, such as `linux/amd64`; KeyError when there is none."""
        for one in self.platforms:
            if one.platform == name:
                return one
        raise KeyError(name)


class ImageFactory:
    """Builds images straight into a storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def image(
        self, repository: str, tag: str, platforms: Sequence[str], layers: Sequence[int], *, seed: int, raw: bool,
        style: Style,
    ) -> Image:  # fmt: skip
        """Push an index and, for each platform, a manifest, a config, and layers of about these sizes."""
        parts = tuple(
            self._platform(repository, name, layers, f"{seed} {name}", raw=raw, style=style) for name in platforms
        )
        entries = []
        for part in parts:
            system, _, architecture = part.platform.partition("/")
            architecture, _, variant = architecture.partition("/")
            platform = {"os": system, "architecture": architecture} | ({"variant": variant} if variant else {})
            entries.append(part.manifest.document | {"platform": platform})
        index = {"schemaVersion": 2, "mediaType": _TYPES[style]["index"], "manifests": entries}
        pushed = self._put(repository, tag, index)
        return Image(repository, tag, _describe(pushed), parts)

    def blob(self, repository: str, size: int, seed: str) -> Descriptor:
        """Push `size` pseudo-random bytes."""
        incoming = self._storage.incoming()
        for block in _random(size, seed):
            incoming.write(block)
        return Descriptor(self._storage.keep(repository, incoming), size, "application/octet-stream")

    def _platform(
        self, repository: str, platform: str, layers: Sequence[int], seed: str, *, raw: bool, style: Style
    ) -> PlatformImage:
        descriptors, diff_ids = [], []
        for number, size in enumerate(layers):
            if raw:
                blob = self.blob(repository, size, f"{seed} {number}")
                descriptor, diff_id = Descriptor(blob.digest, size, _TYPES[style]["layer"]), blob.digest
            else:
                descriptor, diff_id = self._layer(repository, number, size, f"{seed} {number}", _TYPES[style]["layer"])
            descriptors.append(descriptor)
            diff_ids.append(diff_id)
        system, _, architecture = platform.partition("/")
        architecture, _, variant = architecture.partition("/")
        config = {
            "os": system,
            "architecture": architecture,
            **({"variant": variant} if variant else {}),
            "created": "2020-01-01T00:00:00Z",
            "config": {"Cmd": ["/bin/true"], "Labels": {"seed": seed}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created": "2020-01-01T00:00:00Z", "created_by": f"layer {n}"} for n in range(len(layers))],
        }
        body = _encode(config)
        described = Descriptor(self._storage.add(repository, body), len(body), _TYPES[style]["config"])
        manifest = {
            "schemaVersion": 2,
            "mediaType": _TYPES[style]["manifest"],
            "config": described.document,
            "layers": [descriptor.document for descriptor in descriptors],
        }
        pushed = self._put(repository, None, manifest)
        return PlatformImage(platform, _describe(pushed), described, tuple(descriptors))

    def _layer(self, repository: str, number: int, size: int, seed: str, media_type: str) -> tuple[Descriptor, str]:
        """Push a gzipped tar with one file of random bytes; return its descriptor and the tar's own digest."""
        incoming = self._storage.incoming()
        plain = hashlib.sha256()
        packer = zlib.compressobj(0, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        for block in _tar(f"data/{number}.bin", max(1, size - 2048 - size // 3000), seed):
            plain.update(block)
            incoming.write(packer.compress(block))
        incoming.write(packer.flush())
        descriptor = Descriptor(self._storage.keep(repository, incoming), incoming.size, media_type)
        return descriptor, f"sha256:{plain.hexdigest()}"

    def _put(self, repository: str, tag: str | None, document: dict[str, object]) -> Manifest:
        body = _encode(document)
        reference = tag or f"sha256:{hashlib.sha256(body).hexdigest()}"
        return self._storage.put(repository, reference, body, str(document["mediaType"]))


def _describe(manifest: Manifest) -> Descriptor:
    return Descriptor(manifest.digest, len(manifest.body), manifest.media_type)


def _encode(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _random(size: int, seed: str) -> Iterator[bytes]:
    source = random.Random(seed)
    for offset in range(0, size, _BLOCK):
        yield source.randbytes(min(_BLOCK, size - offset))


def _tar(name: str, size: int, seed: str) -> Iterator[bytes]:
    entry = tarfile.TarInfo(name)
    entry.size = size
    yield entry.tobuf(tarfile.USTAR_FORMAT)
    yield from _random(size, seed)
    yield bytes(-size % 512 + 1024)
