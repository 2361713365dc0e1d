"""Content digests (OCI image specification, *Descriptors*, *Digests*)."""

from __future__ import annotations

import hashlib
import re
from typing import Protocol, Self

_FORMAT = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


class Hash(Protocol):
    """The part of a `hashlib` object that digests need."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """Return the hash of all bytes so far in lower-case hex."""


class Digest(str):
    """A valid `<algorithm>:<hex>`; compares, hashes and prints as that text."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the digest that `text` spells.

        Raises:
            ValueError: not sha256 or sha512 in lower-case hex of full length.
        """
        if _FORMAT.fullmatch(text) is None:
            raise ValueError(f"{text[:150]!r} is not a sha256 or sha512 digest")
        return cls(text)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Self:
        """Return the digest of `data`."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, data, usedforsecurity=True).hexdigest()}")

    @property
    def algorithm(self) -> str:
        """`sha256` or `sha512`."""
        return self[:6]

    @property
    def hex(self) -> str:
        """The part behind the colon."""
        return self[7:]

    def hasher(self) -> Hash:
        """Return a fresh hash of this digest's algorithm."""
        return hashlib.new(self.algorithm, usedforsecurity=True)

    def matches(self, hasher: Hash) -> bool:
        """Say whether what `hasher` took in has this digest."""
        return hasher.hexdigest() == self.hex
