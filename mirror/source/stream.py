"""A source of blobs, as a fill sees it: the upstream, and a sibling of the fleet."""

from __future__ import annotations

from typing import Protocol

from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source.pace import Pace


class RangeRefused(RegistryError):
    """The source says that there is nothing at the offset asked for (416): what came before was of something else."""

    def __init__(self, label: str) -> None:
        text = f"{label} has fewer bytes of the blob than it had before"
        super().__init__(ErrorCode.UNAVAILABLE, text, failure=Failure.SERVER, retry_after=10)


class RangeMistaken(RegistryError):
    """The source answers a range with another: what it sends cannot be placed."""

    def __init__(self, name: str) -> None:
        text = f"upstream {name} answered with another range than it was asked for"
        super().__init__(ErrorCode.UNAVAILABLE, text, failure=Failure.SERVER, retry_after=10)


class BlobStream(Protocol):
    """An open answer: the bytes from `start` up to `stop` of a blob of `size`; these two are None while unknown."""

    start: int
    stop: int | None
    size: int | None

    @property
    def waiting_since(self) -> float | None:
        """When it began to wait for the next byte, on the monotonic clock; None while it waits for something else."""

    async def read(self) -> bytes:
        """Return the next bytes as they arrived; nothing at the end.

        Raises:
            RegistryError: the stream broke; every byte that arrived before was returned first.
        """

    async def close(self, *, is_wrong: bool = False) -> None:
        """End the answer, whole or not; `is_wrong` if it is not what was asked for."""


class BlobSource(Protocol):
    """One named source."""

    @property
    def label(self) -> str:
        """The name under which metrics know it."""

    @property
    def pace(self) -> Pace:
        """How many connections to it pay."""

    async def open(self, repository: Repository, digest: Digest, start: int, stop: int | None = None) -> BlobStream:
        """Return a stream of a blob from `start` up to `stop`, the end if that is None or beyond it.

        It is from 0 to the end where the source knows no ranges.

        Raises:
            RegistryError: the source has no such blob, or failed.
            RangeRefused: the blob does not reach to `start`.
            RangeMistaken: the source answered with another range than it was asked for.
        """
