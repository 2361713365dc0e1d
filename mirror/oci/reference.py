"""Repository names, tags and references (OCI distribution specification, *Pulling manifests*)."""

from __future__ import annotations

import re
from typing import NamedTuple

from mirror.oci.digest import Digest

MAX_NAME = 255
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


class Repository(NamedTuple):
    """A repository of one upstream, as its users write it: `docker.io` and `library/alpine`."""

    upstream: str
    name: str

    def __str__(self) -> str:
        return f"{self.upstream}/{self.name}"


class Tag(str):
    """A valid tag."""

    __slots__ = ()


Reference = Tag | Digest


def is_name(text: str) -> bool:
    """Say whether `text` is a legal repository name of at most 255 characters."""
    return len(text) <= MAX_NAME and _NAME.fullmatch(text) is not None


def parse_reference(text: str) -> Reference:
    """Return the tag or digest that `text` spells.

    Raises:
        ValueError: neither; the message says which of the two it looked like.
    """
    if ":" in text:
        return Digest.parse(text)
    if _TAG.fullmatch(text) is None:
        raise ValueError(f"{text[:150]!r} is not a tag")
    return Tag(text)
