"""What a door may ask, and what it is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from mirror.config.units import Secret
from mirror.observe.cache_status import CacheStatus
from mirror.observe.metrics import Sample
from mirror.oci.digest import Digest
from mirror.oci.reference import Reference, Repository


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
    """The blob is on its way into the file at `path`, confirmed by its source; `size` is None while it is unknown.

    `chain` names the siblings that its bytes come from, nearest first; nobody if they come from the upstream.
    """

    fill: int
    path: str
    size: int | None
    status: CacheStatus
    chain: tuple[str, ...] = ()


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


class Membership(msgspec.Struct, frozen=True):
    """What the replica is in its fleet: all that it takes to tell a sibling's request from a stranger's.

    `boot` is another text each time that the replica starts. Fleet time is the monotonic clock and `clock` seconds.
    `epoch` is the number of the last purge that was carried out.
    """

    identity: str
    boot: str
    secret: Secret
    clock: float
    epoch: int = 0


class Changes(msgspec.Struct, frozen=True):
    """What changed on the hub's shelf since a door last asked; `seen` is what to ask with next.

    `rows` are index rows by their key as the store writes them, None for one that is gone. `is_anew`: forget every row
    that was remembered; these are all that the index does not show yet. `is_complete`: nothing else has changed; it is
    false where more is to be asked for, or, if `is_anew`, where it is too much to be told: the index is not to be read.
    `is_settled`: the index shows everything by now. `inquiry` is another number whenever somebody wants to know what
    the doors counted. `membership` is None in a replica without a fleet.
    """

    seen: str
    rows: Mapping[str, bytes | None]
    is_anew: bool = False
    is_complete: bool = True
    is_settled: bool = False
    inquiry: int = 0
    membership: Membership | None = None


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

    async def sibling_blob(self, asker: str, followers: Sequence[str], digest: Digest) -> Whole | Filling | None:
        """Return where a blob can be read that the sibling `asker` wants; None if it is not here. It starts nothing.

        `followers` read it from the asker: what comes from any of them is not given back.

        Raises:
            RegistryError: its source has yet to confirm it, so ask again at once (`retry_after` 0); or it comes from
                the asker or its followers itself, or from too far.
        """

    async def sibling_manifest(self, repository: Repository, digest: Digest) -> ManifestFound | None:
        """Return a manifest that is held, whatever it is linked to; None if it is not."""

    async def sibling_has(self, digest: Digest, seconds: float) -> bool:
        """Say whether a digest is held, whole and verified, and keep it for so long, whatever has to go."""

    async def report(self, door: str, samples: Sequence[Sample], used: Mapping[Digest, float]) -> None:
        """Tell what a door of another process counted so far, and which digests it served and when."""

    async def changes(self, seen: str) -> Changes:
        """Return what changed since `seen`, at first empty; with nothing soon, if nothing changes."""
