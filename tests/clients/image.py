"""A runnable image of several layers for two platforms, and how it gets into a registry."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import random
import tarfile
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Final

from tests.clients.executable import ARCHITECTURES, build_executable

MESSAGE: Final = "the image runs"
_LAYER_BYTES: Final = (20 << 20, 1 << 20, 3000)
_PUSH_SECONDS: Final = 30


@dataclass(frozen=True)
class MediaTypes:
    """One of the two families of media types that registries hold."""

    index: str
    manifest: str
    config: str
    layer: str


OCI: Final = MediaTypes(
    index="application/vnd.oci.image.index.v1+json",
    manifest="application/vnd.oci.image.manifest.v1+json",
    config="application/vnd.oci.image.config.v1+json",
    layer="application/vnd.oci.image.layer.v1.tar+gzip",
)
DOCKER: Final = MediaTypes(
    index="application/vnd.docker.distribution.manifest.list.v2+json",
    manifest="application/vnd.docker.distribution.manifest.v2+json",
    config="application/vnd.docker.container.image.v1+json",
    layer="application/vnd.docker.image.rootfs.diff.tar.gzip",
)


@dataclass(frozen=True)
class Content:
    """Bytes that a descriptor names."""

    media_type: str
    body: bytes

    @property
    def digest(self) -> str:
        """Return the SHA-256 digest as the registry API writes it."""
        return f"sha256:{hashlib.sha256(self.body).hexdigest()}"

    def descriptor(self) -> dict[str, object]:
        """Return the descriptor as it stands in a manifest."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.body)}


@dataclass(frozen=True)
class Variant:
    """The image for one platform."""

    architecture: str
    manifest: Content
    config: Content
    layers: tuple[Content, ...]

    @property
    def blobs(self) -> tuple[Content, ...]:
        """Return the config and the layers."""
        return (self.config, *self.layers)

    @property
    def blob_bytes(self) -> int:
        """Return what a client without any of the blobs has to fetch."""
        return sum(len(blob.body) for blob in self.blobs)


@dataclass(frozen=True)
class Image:
    """An index over one variant per architecture; its program prints `MESSAGE` and exits 0."""

    index: Content
    variants: tuple[Variant, ...]

    @property
    def digest(self) -> str:
        """Return the digest of the index, which is what a tag of the image resolves to."""
        return self.index.digest

    @property
    def native(self) -> Variant:
        """Return the variant for the machine that the tests run on."""
        wanted = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
        return next(variant for variant in self.variants if variant.architecture == wanted)

    def push(self, registry: str, repository: str, tag: str) -> None:
        """Put everything into the registry at the URL `registry`, the index under `tag`."""
        for digest, body in {blob.digest: blob.body for variant in self.variants for blob in variant.blobs}.items():
            _push_blob(f"{registry}/v2/{repository}", digest, body)
        for variant in self.variants:
            _put(f"{registry}/v2/{repository}/manifests/{variant.manifest.digest}", variant.manifest)
        _put(f"{registry}/v2/{repository}/manifests/{tag}", self.index)


def build_image(types: MediaTypes = OCI, seed: int = 1) -> Image:
    """Build an image whose layers, but for the program's, are incompressible and shared by both platforms."""
    noise = random.Random(seed)
    shared = [_tar(f"data/{size}", noise.randbytes(size)) for size in _LAYER_BYTES]
    variants = tuple(_build_variant(architecture, shared, types) for architecture in ARCHITECTURES)
    manifests = [
        {**variant.manifest.descriptor(), "platform": {"architecture": variant.architecture, "os": "linux"}}
        for variant in variants
    ]
    index = {"schemaVersion": 2, "mediaType": types.index, "manifests": manifests}
    return Image(Content(types.index, _json(index)), variants)


def _build_variant(architecture: str, shared: list[bytes], types: MediaTypes) -> Variant:
    program = _tar("sample", build_executable(architecture, MESSAGE), mode=0o755)
    archives = [program, *shared]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/sample"], "Env": ["PATH=/"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in archives]},
        "history": [{"created_by": "a test"} for _ in archives],
    }
    described = Content(types.config, _json(config))
    layers = tuple(Content(types.layer, gzip.compress(tar, compresslevel=1, mtime=0)) for tar in archives)
    manifest = {
        "schemaVersion": 2,
        "mediaType": types.manifest,
        "config": described.descriptor(),
        "layers": [layer.descriptor() for layer in layers],
    }
    return Variant(architecture, Content(types.manifest, _json(manifest)), described, layers)


def _tar(name: str, body: bytes, mode: int = 0o644) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(body), mode
        archive.addfile(entry, io.BytesIO(body))
    return packed.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2).encode()


def _push_blob(repository: str, digest: str, body: bytes) -> None:
    start = urllib.request.Request(f"{repository}/blobs/uploads/", method="POST", data=b"")
    with urllib.request.urlopen(start, timeout=_PUSH_SECONDS) as answer:
        location = urllib.parse.urljoin(repository, answer.headers["Location"])
    separator = "&" if "?" in location else "?"
    _put(f"{location}{separator}digest={digest}", Content("application/octet-stream", body))


def _put(url: str, content: Content) -> None:
    headers = {"Content-Type": content.media_type}
    request = urllib.request.Request(url, method="PUT", data=content.body, headers=headers)
    with urllib.request.urlopen(request, timeout=_PUSH_SECONDS) as answer:
        assert answer.status == 201, f"{url}: {answer.status}"
