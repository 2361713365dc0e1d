"""WHAT: the image, the digest or the glob that an operator names. Parsed once, matched without I/O."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from mirror.config import Upstreams
from mirror.config.globs import compile_globs
from mirror.config.upstreams import DOCKER_HUB
from mirror.oci.digest import Digest
from mirror.oci.errors import LayoverError
from mirror.oci.reference import Repository, Tag, is_name, parse_reference

_LONGEST = 1000
_LATEST = "latest"


class SelectionError(LayoverError):
    """What was named is no image, no digest and no glob."""


class Selection(NamedTuple):
    """What is meant by `text`, which is its full form: `docker.io/library/alpine:latest`, a digest, or a glob.

    `repository` is None where several may be meant.
    """

    text: str
    repository: Repository | None
    reference: Tag | Digest | None
    matches: Callable[[str], bool]

    def has_tag(self, repository: str, tag: str) -> bool:
        """Say whether a tag is meant."""
        return self.matches(f"{repository}:{tag}")

    def has_digest(self, repository: str, digest: Digest) -> bool:
        """Say whether a digest is meant as it stands under a repository."""
        return self.matches(f"{repository}@{digest}")

    def may_have(self, repository: str) -> bool:
        """Say whether something of a repository may be meant."""
        if self.repository is not None:
            return str(self.repository) == repository
        if self.reference is not None:
            return True
        return any(_may_begin(self.text, f"{repository}{mark}") for mark in ":@")


def select(text: str, upstreams: Upstreams) -> Selection:
    """Return what `text` means, as clients write images: `alpine` is `docker.io/library/alpine:latest`.

    Raises:
        SelectionError: it is no image, no digest and no glob.
    """
    if not text or len(text) > _LONGEST or not text.isascii() or not text.isprintable() or " " in text:
        raise _wrong(text)
    if "*" in text:
        full = text if text.startswith("*") else _full(text, upstreams)
        return Selection(full, None, None, compile_globs([full]))
    try:
        if "/" not in text and "@" not in text and text.startswith(("sha256:", "sha512:")):
            digest = Digest.parse(text)
            return Selection(text, None, digest, lambda name: name.rpartition("@")[2] == text)
        return _image(text, upstreams)
    except ValueError:
        raise _wrong(text) from None


def _image(text: str, upstreams: Upstreams) -> Selection:
    name, _, named = text.partition("@")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    host, _, path = _full(f"{head}{slash}{last}", upstreams).partition("/")
    if not is_name(path):
        raise ValueError(path)
    # A digest tells all; a tag beside it is for people.
    reference = Digest.parse(named) if "@" in text else parse_reference(tag if colon else _LATEST)
    repository = Repository(host, path)
    full = f"{repository}{'@' if isinstance(reference, Digest) else ':'}{reference}"
    return Selection(full, repository, reference, full.__eq__)


def _full(text: str, upstreams: Upstreams) -> str:
    """Return a name with its upstream before it, and with `library/` where Docker Hub's own images have it."""
    first, slash, rest = text.partition("/")
    upstream = upstreams.lookup(first) if slash and "*" not in first else None
    if upstream is not None:
        host, path = upstream.name, rest
    elif slash and ("*" in first or "." in first or ":" in first or first == "localhost"):
        host, path = first, rest
    else:
        host, path = DOCKER_HUB, text
    if host == DOCKER_HUB and "/" not in path and not path.startswith("*"):
        path = f"library/{path}"
    return f"{host}/{path}"


def _wrong(text: str) -> SelectionError:
    return SelectionError(
        f"{text[:150]!r} is no image, digest or glob: write alpine:3, ghcr.io/org/app:1, sha256:… or 'ghcr.io/org/*'"
    )


@functools.lru_cache(1024)
def _may_begin(glob: str, text: str) -> bool:
    """Say whether anything that begins with `text` matches a glob."""
    places = _past_stars(glob, {0})
    for letter in text:
        stays = {place for place in places if glob[place : place + 1] == "*"}
        moves = {place + 1 for place in places if glob[place : place + 1] == letter}
        places = _past_stars(glob, stays | moves)
    return bool(places)


def _past_stars(glob: str, places: set[int]) -> set[int]:
    """Add the places behind the stars that a name may be at: a star also stands for nothing."""
    found = set(places)
    for place in places:
        behind = place
        while glob[behind : behind + 1] == "*":
            behind += 1
            found.add(behind)
    return found
