"""What the store remembers beside the content: tags, links, verdicts and orders, and the journal's entries of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from mirror.oci.digest import Digest

LINKS = "l:"
VERDICTS = "v:"
ORDERS = "o:"


class TagState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a tag pointed when its upstream was last asked; `checked_at` in seconds since the epoch."""

    digest: Digest
    media_type: str
    size: int
    checked_at: float


class Link(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Under a repository a digest may be served as a manifest of `media_type`, as a blob, or as both.

    `size` in bytes, None while nobody has told it. `is_guarded`: the mirror had credentials whenever the upstream
    showed it the digest, so that only a verdict tells whether others may have it. `origin` is the repository that a
    link of a whole upstream was last made by.
    """

    media_type: str | None
    is_blob: bool
    size: int | None
    is_guarded: bool = False
    origin: str = ""

    def merged(self, other: Link | None) -> Link:
        """Return what both links allow together; where they tell different sizes, nobody knows the size."""
        if other is None:
            return self
        size = self.size if self.size is not None else other.size
        if other.size is not None and other.size != size:
            size = None
        return Link(
            self.media_type or other.media_type,
            self.is_blob or other.is_blob,
            size,
            self.is_guarded and other.is_guarded,
            self.origin,
        )


class Verdict(msgspec.Struct, frozen=True, array_like=True):
    """Whether a caller without credentials is refused a repository; `checked_at` in seconds since the epoch."""

    is_private: bool
    checked_at: float


class Carried(msgspec.Struct, frozen=True, array_like=True):
    """An order that was carried out here: the last of its kind about `what`.

    `verb` is `purge`, `pin` or `unpin`, or `heard` for the last word of the fleet. `number` is the fleet's, 0 for what
    was ordered without it. `at` is fleet time when it was given. `is_due`: the fleet could not be told yet.
    """

    verb: str
    what: str
    number: int
    at: float
    is_due: bool = False

    @property
    def key(self) -> str:
        """The index key: an unpin takes the place of the pin that it ends."""
        return order_key("pin" if self.verb == "unpin" else self.verb, self.what)


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
    """A repository was shown to hold a digest; a manifest's children follow from its content.

    `is_shared`: it is content of a public repository, which may stand in for itself under any other of the upstream.
    """

    repository: str
    digest: Digest
    link: Link
    is_shared: bool = True


class Judged(msgspec.Struct, frozen=True, tag="verdict"):
    """A repository was found to be public or private."""

    repository: str
    verdict: Verdict


class Unlinked(msgspec.Struct, frozen=True, tag="unlink"):
    """Under a repository, or any of an upstream given by its name, these digests are served no longer."""

    repository: str
    digests: tuple[Digest, ...]


class Ordered(msgspec.Struct, frozen=True, tag="order"):
    """An order was carried out, or what its index key stands for needs no remembering any more."""

    key: str
    order: Carried | None


Row = TagState | Link | Verdict | Carried
Entry = TagSet | TagDropped | Linked | Judged | Unlinked | Ordered


def tag_key(repository: str, name: str) -> str:
    """Return the index key of a tag's state."""
    return f"t:{repository}:{name}"


def link_key(repository: str, digest: Digest) -> str:
    """Return the index key of a link; an upstream's name alone stands for any of its repositories."""
    return f"{links_prefix(repository)}{digest}"


def links_prefix(repository: str) -> str:
    """Return what the index keys of a repository's links begin with."""
    return f"{LINKS}{repository}@"


def verdict_key(repository: str) -> str:
    """Return the index key of a repository's verdict."""
    return f"{VERDICTS}{repository}"


def order_key(kind: str, what: str) -> str:
    """Return the index key of the last order of a kind about something."""
    return f"{ORDERS}{kind}:{what}"


def encode_row(row: Row | None) -> bytes | None:
    """Return an index row as it is written, None for one that is gone."""
    return None if row is None else msgspec.msgpack.encode(row, enc_hook=str)


def decode_row(key: str, value: bytes | None) -> Row | None:
    """Return what `encode_row` was given for a key."""
    if value is None:
        return None
    row: Row = msgspec.msgpack.decode(value, type=_KINDS[key[:2]], dec_hook=revive)
    return row


def revive(kind: type, text: Any) -> Any:
    """Return a value of one of our text types from its plain text: msgspec's `dec_hook`; `str` is the `enc_hook`."""
    return kind(text)


_KINDS: Mapping[str, type[Row]] = MappingProxyType({"t:": TagState, LINKS: Link, VERDICTS: Verdict, ORDERS: Carried})
