"""What a door may ask, and what it is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from mirror.observe.cache_status import CacheStatus
from mirror.observe.metrics import Sample
from mirror.oci.digest import Digest
from mirror.oci.reference import Reference, Repository
from mirror.oci.use import Use


class ManifestFound(msgspec.Struct, frozen=True):
    """A manifest, whole and verified."""

    digest: Digest
    media_type: str
    body: bytes
    status: CacheStatus


class BlobFound(msgspec.Struct, frozen=True):
    """The upstream has the blob, or it is held; `size` in bytes, None if nobody tells it."""

    size: int | None
    status: CacheStatus


class Whole(msgspec.Struct, frozen=True, tag=True):
    """The blob is held, and may be served under the repository; `size` in bytes."""

    size: int
    status: CacheStatus


class Filling(msgspec.Struct, frozen=True, tag=True):
    """The blob is on its way into the file at `path`, confirmed by its source; `size` is None while it is unknown."""

    fill: int
    path: str
    size: int | None
    status: CacheStatus


class Unstored(msgspec.Struct, frozen=True, tag=True):
    """There is no room for the blob: it can be read through the channel; `size` is None while it is unknown."""

    size: int | None
    status: CacheStatus


Body = Whole | Filling | Unstored


class Progress(msgspec.Struct, frozen=True):
    """How far a fill may be read from an offset on.

    The bytes up to `end` may be sent. `size` is known at the latest when `is_verified`. `lost_room`: the fill ended for
    want of room, and the rest can be had through the channel alone. `is_forgotten`: the hub does not know the fill, as
    after a restart; ask for the blob again.
    """

    end: int
    size: int | None = None
    is_verified: bool = False
    lost_room: bool = False
    is_forgotten: bool = False


class Changes(msgspec.Struct, frozen=True):
    """What changed on the hub's shelf since a door last asked; `seen` is what to ask with next.

    `rows` are index rows by their key as the store writes them, None for one that is gone. `is_anew`: forget every row
    that was remembered; these are all that the index does not show yet. `is_complete`: nothing else has changed; it is
    false where more is to be asked for, or, if `is_anew`, where it is too much to be told: the index is not to be read.
    `is_settled`: the index shows everything by now. `inquiry` is another number whenever somebody wants to know what
    the doors counted.
    """

    seen: str
    rows: Mapping[str, bytes | None]
    is_anew: bool = False
    is_complete: bool = True
    is_settled: bool = False
    inquiry: int = 0


class Listing(msgspec.Struct, frozen=True):
    """An upstream's answer to a listing, with the query of its next page if there is one."""

    body: bytes
    media_type: str
    status: CacheStatus
    next_query: str | None = None
    filters_applied: str | None = None


class Stream(Protocol):
    """A blob's bytes that are not stored, in order, its tail withheld until it verified."""

    @property
    def size(self) -> int | None:
        """The blob's size in bytes, None while it is unknown."""

    async def read(self) -> bytes:
        """Return the next bytes, at most 256 KiB; nothing at the end.

        Raises:
            RegistryError: every source failed, or the digest did not verify.
        """

    async def close(self) -> None:
        """Give the stream up."""


class Hub(Protocol):
    """The hub as a door sees it. Every method raises RegistryError for what a client is to be told."""

    async def manifest(self, repository: Repository, reference: Reference) -> ManifestFound:
        """Return a manifest that may be served under the repository, fetching or revalidating what needs it."""

    async def pulled(self, repository: Repository, digest: Digest) -> None:
        """Tell that a client was given a manifest: if it is new, what it refers to may be brought in ahead."""

    async def blob(self, repository: Repository, digest: Digest) -> Body:
        """Return where a blob can be read, starting or joining its fill if it is not held."""

    async def blob_size(self, repository: Repository, digest: Digest) -> BlobFound:
        """Return a blob's size, held or not, without starting a fill."""

    async def progress(self, fill: int, offset: int) -> Progress:
        """Wait until a fill may be read beyond `offset`, or has ended; the fill learns what is waited for."""

    async def stream(self, repository: Repository, digest: Digest, start: int) -> Stream:
        """Return a blob's bytes from `start` on, fetched for this reader alone."""

    async def tags(self, repository: Repository, query: str) -> Listing:
        """Return a page of the upstream's tags; `query` is passed on."""

    async def referrers(self, repository: Repository, digest: Digest, query: str) -> Listing:
        """Return a page of what the upstream says refers to a digest; `query` is passed on."""

    async def report(self, door: str, samples: Sequence[Sample], used: Mapping[Digest, Use]) -> None:
        """Tell what a door of another process counted so far, and how it used which digests since it told last."""

    async def changes(self, seen: str) -> Changes:
        """Return what changed since `seen`, at first empty; with nothing soon, if nothing changes."""
