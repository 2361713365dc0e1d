"""What lies at and below a manifest that is held. Blocks; any thread."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from mirror.oci.digest import Digest
from mirror.oci.manifest import Children, children
from mirror.store import Link, Shelf

_LONGEST_MANIFEST = 16 * 2**20


class Contents(NamedTuple):
    """The digests at and below some manifests; `sizes` as those that refer to them say, where they do."""

    manifests: frozenset[Digest]
    blobs: frozenset[Digest]
    sizes: Mapping[Digest, int | None]

    @property
    def all(self) -> frozenset[Digest]:
        """Manifests and blobs."""
        return self.manifests | self.blobs


def contents(shelf: Shelf, roots: Iterable[Digest], without: Collection[Digest] = ()) -> Contents:
    """Return what lies at and below manifests as far as they are held, but nothing at or below those of `without`."""
    manifests: set[Digest] = set()
    blobs: set[Digest] = set()
    sizes: dict[Digest, int | None] = {}
    waiting = list(roots)
    while waiting:
        digest = waiting.pop()
        if digest in manifests or digest in without:
            continue
        manifests.add(digest)
        below = children_of(shelf, digest)
        waiting += [each.digest for each in below.manifests]
        blobs.update(each.digest for each in below.blobs if each.digest not in without)
        sizes.update({each.digest: each.size for each in (*below.manifests, *below.blobs)})
    return Contents(frozenset(manifests), frozenset(blobs - manifests), sizes)


def children_of(shelf: Shelf, digest: Digest) -> Children:
    """Return what a manifest refers to; nothing if it is not held."""
    size = shelf.content.size(digest)
    body = shelf.content.peek(digest) if size is not None and size <= _LONGEST_MANIFEST else shelf.hot(digest)
    return Children() if body is None else children(body)


def manifests_of(links: Mapping[Digest, Link]) -> set[Digest]:
    """Return what may be served as a manifest."""
    return {digest for digest, link in links.items() if link.media_type is not None}
