"""How Redis calls what is asked about: short, as there is much of it."""

from __future__ import annotations

import hashlib

from mirror.oci.digest import Digest

_ALGORITHMS = {"sha256": b"2", "sha512": b"5"}


def digest_key(digest: Digest) -> bytes:
    """Return a digest in a byte more than it has."""
    return _ALGORITHMS[digest.algorithm] + bytes.fromhex(digest.hex)


def topic_key(topic: str) -> bytes:
    """Return 16 bytes that stand for a topic."""
    return hashlib.sha256(topic.encode()).digest()[:16]
