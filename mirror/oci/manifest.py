"""What a manifest's bytes say: its type, its digest, and what it refers to."""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple

import msgspec

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.platform import Platform

# What fits the formats that sizes are kept in; no blob comes near it.
_LARGEST_SIZE = 2**63
# No image comes near it; what is beyond is found out when it is asked for.
_MOST_ENTRIES = 4096


class Children(NamedTuple):
    """What a manifest refers to: other manifests (of an index), and blobs (config and layers)."""

    manifests: tuple[Descriptor, ...] = ()
    blobs: tuple[Descriptor, ...] = ()


class PlatformManifest(NamedTuple):
    """A manifest that an index lists for a platform."""

    platform: Platform
    digest: Digest


def platforms(body: bytes) -> tuple[PlatformManifest, ...]:
    """Return what an index lists for each platform; of anything else, nothing."""
    found = []
    for entry in _entries(_decode(body), "manifests"):
        descriptor, platform = _descriptor(entry), entry.get("platform") if isinstance(entry, dict) else None
        if descriptor is not None and isinstance(platform, dict):
            parts = [str(platform.get(key) or "") for key in ("os", "architecture", "variant", "os.version")]
            found.append(PlatformManifest(Platform.of(*parts), descriptor.digest))
    return tuple(found)


def children(body: bytes) -> Children:
    """Return what the manifest refers to; what cannot be read as a manifest refers to nothing.

    Entries without a usable digest are left out: a mirror passes manifests on, it does not judge them.
    """
    document = _decode(body)
    fields = ("layers", "blobs")
    blobs = [_descriptor(document.get("config"))]
    for field in fields:
        blobs += [_descriptor(entry) for entry in _entries(document, field)]
    blobs += [_schema1_layer(entry) for entry in _entries(document, "fsLayers")]
    manifests = [_descriptor(entry) for entry in _entries(document, "manifests")]
    return Children(tuple(m for m in manifests if m is not None), tuple(b for b in blobs if b is not None))


def media_type_of(body: bytes) -> str:
    """Return the type the manifest itself names, or the one its shape tells; for upstreams that send none."""
    document = _decode(body)
    named = _clean(document.get("mediaType"))
    if named:
        return named
    if document.get("schemaVersion") == 1:
        return media_types.DOCKER_SCHEMA1_SIGNED if "signatures" in document else media_types.DOCKER_SCHEMA1
    return media_types.OCI_INDEX if "manifests" in document else media_types.OCI_MANIFEST


def is_manifest(body: bytes) -> bool:
    """Say whether `body` is a JSON object, as every manifest is."""
    return bool(_decode(body))


def verifies(body: bytes, digest: Digest) -> bool:
    """Say whether `body` has `digest`, over its raw bytes; of a signed schema 1 manifest, over its signed payload."""
    if Digest.of(body, digest.algorithm) == digest:
        return True
    payload = _signed_payload(body)
    return payload is not None and Digest.of(payload, digest.algorithm) == digest


def digest_of(body: bytes) -> Digest:
    """Return the sha256 digest under which registries know this manifest."""
    return Digest.of(_signed_payload(body) or body)


def _decode(body: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _entries(document: dict[str, Any], field: str) -> list[Any]:
    entries = document.get(field)
    return entries[:_MOST_ENTRIES] if isinstance(entries, list) else []


def _descriptor(entry: Any) -> Descriptor | None:
    if not isinstance(entry, dict):
        return None
    size, media_type = entry.get("size"), entry.get("mediaType")
    try:
        digest = Digest.parse(str(entry.get("digest")))
    except ValueError:
        return None
    known = size if isinstance(size, int) and not isinstance(size, bool) and 0 <= size < _LARGEST_SIZE else None
    return Descriptor(digest, known, _clean(media_type))


def _clean(media_type: object) -> str:
    """Return a media type that can stand in a header; else nothing."""
    is_clean = isinstance(media_type, str) and media_type.isascii() and media_type.isprintable()
    return media_type if is_clean and isinstance(media_type, str) else ""


def _schema1_layer(entry: Any) -> Descriptor | None:
    return _descriptor({"digest": entry.get("blobSum")}) if isinstance(entry, dict) else None


def _signed_payload(body: bytes) -> bytes | None:
    """Return the payload under a schema 1 manifest's signatures (Docker image manifest, *Signed Manifests*)."""
    if b'"signatures"' not in body:
        return None
    document = _decode(body)
    if document.get("schemaVersion") != 1:
        return None
    try:
        protected = msgspec.json.decode(_base64url(_entries(document, "signatures")[0]["protected"]))
        return body[: protected["formatLength"]] + _base64url(protected["formatTail"])
    except (LookupError, TypeError, ValueError, RecursionError, msgspec.DecodeError, binascii.Error):
        return None


def _base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
