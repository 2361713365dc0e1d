"""What the store remembers beside the content: tags and links, and the journal's entries that carry them."""

from __future__ import annotations

from typing import Any

import msgspec

from mirror.oci.digest import Digest


class TagState(msgspec.Struct, frozen=True, array_like=True):
    """Where a tag pointed when its upstream was last asked; `checked_at` in seconds since the epoch."""

    digest: Digest
    media_type: str
    size: int
    checked_at: float


class Link(msgspec.Struct, frozen=True, array_like=True):
    """Under a repository a digest may be served as a manifest of `media_type`, as a blob, or as both.

    `size` in bytes, None while nobody has told it.
    """

    media_type: str | None
    is_blob: bool
    size: int | None

    def merged(self, other: Link | None) -> Link:
        """Return what both links allow together; where they tell different sizes, nobody knows the size."""
        if other is None:
            return self
        size = self.size if self.size is not None else other.size
        if other.size is not None and other.size != size:
            size = None
        return Link(self.media_type or other.media_type, self.is_blob or other.is_blob, size)


class TagSet(msgspec.Struct, frozen=True, tag="tag"):
    """A tag points to a digest."""

    repository: str
    name: str
    state: TagState


class TagDropped(msgspec.Struct, frozen=True, tag="untag"):
    """A tag is no longer held."""

    repository: str
    name: str


class Linked(msgspec.Struct, frozen=True, tag="link"):
    """A repository was shown to hold a digest; a manifest's children follow from its content."""

    repository: str
    digest: Digest
    link: Link


Entry = TagSet | TagDropped | Linked


def tag_key(repository: str, name: str) -> str:
    """Return the index key of a tag's state."""
    return f"t:{repository}:{name}"


def link_key(repository: str, digest: Digest) -> str:
    """Return the index key of a link; an upstream's name alone stands for any of its repositories."""
    return f"l:{repository}@{digest}"


def revive(kind: type, text: Any) -> Any:
    """Return a value of one of our text types from its plain text: msgspec's `dec_hook`; `str` is the `enc_hook`."""
    return kind(text)
