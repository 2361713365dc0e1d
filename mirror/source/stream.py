"""A source of blobs, as a fill sees it: the upstream, and a sibling of the fleet."""

from __future__ import annotations

from typing import Protocol

from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository


class RangeRefused(RegistryError):
    """The source says that there is nothing at the offset asked for (416): what came before was of something else."""

    def __init__(self, label: str) -> None:
        text = f"{label} has fewer bytes of the blob than it had before"
        super().__init__(ErrorCode.UNAVAILABLE, text, failure=Failure.SERVER, retry_after=10)


class BlobStream(Protocol):
    """An open answer. `start` is the offset of its first byte, `size` the whole blob's, None while unknown."""

    start: int
    size: int | None

    async def read(self) -> bytes:
        """Return the next bytes as they arrived; nothing at the end.

        Raises:
            RegistryError: the stream broke; every byte that arrived before was returned first.
        """

    async def close(self) -> None:
        """End the answer, whole or not."""


class BlobSource(Protocol):
    """One named source."""

    @property
    def label(self) -> str:
        """The name under which metrics know it."""

    async def open(self, repository: Repository, digest: Digest, start: int) -> BlobStream:
        """Return a stream of a blob from `start` on, or from 0 where the source knows no ranges.

        Raises:
            RegistryError: the source has no such blob, or failed.
            RangeRefused: the blob does not reach to `start`.
        """
