"""What a sibling may have: what is here, whole or still growing. Nothing is started, and no upstream is asked."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from mirror.channel import Body, Filling, Hub, ManifestFound, Membership, Progress, Stream
from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.pull.blob import BlobBody
from mirror.store import Shelf

_HIT = CacheStatus(Outcome.HIT)
_MOST_TRIES = 3


class Shared(NamedTuple):
    """A blob for a sibling; `chain` names whom a growing one comes from, nearest first, and is None for a whole one."""

    body: BlobBody
    chain: tuple[str, ...] | None


class Sharing:
    """What a door answers siblings with."""

    def __init__(self, shelf: Shelf, hub: Hub, membership: Callable[[], Awaitable[Membership | None]]) -> None:
        """Share what `shelf` and `hub` have; `membership` tells what the replica is in its fleet, None without one."""
        self.membership = membership
        self._shelf = shelf
        self._hub = hub

    async def blob(self, repository: Repository, digest: Digest, asker: str, followers: Sequence[str]) -> Shared:
        """Return a blob for `asker`, from whom `followers` read it, to be read and closed.

        Raises:
            RegistryError: it is not here, or may not be read yet, or not by them.
        """
        ways = _Ways(self._hub, asker, followers)
        body = BlobBody(ways, self._shelf.content, repository, digest, _HIT)
        for _ in range(_MOST_TRIES):
            descriptor = self._shelf.content.open(digest)
            if descriptor is not None:
                body.hold(descriptor, os.fstat(descriptor).st_size)
                return Shared(body, None)
            found = await ways.blob(repository, digest)
            if isinstance(found, Filling) and body.follow(found):
                return Shared(body, found.chain if body.is_growing else None)
        raise RegistryError(ErrorCode.UNAVAILABLE, f"{digest} vanished again and again", failure=Failure.RESET)

    async def manifest(self, repository: Repository, digest: Digest) -> ManifestFound:
        """Return a manifest.

        Raises:
            RegistryError: it is not here.
        """
        found = await self._hub.sibling_manifest(repository, digest)
        if found is None:
            raise RegistryError(ErrorCode.MANIFEST_UNKNOWN, f"{digest} is not here")
        return found

    async def has(self, digest: Digest, seconds: float) -> bool:
        """Say whether a digest is here, and keep it for so long.

        Raises:
            RegistryError: nobody can tell just now.
        """
        return await self._hub.sibling_has(digest, seconds)


class _Ways:
    """The ways to a blob for one sibling."""

    def __init__(self, hub: Hub, asker: str, followers: Sequence[str]) -> None:
        self._hub = hub
        self._asker = asker
        self._followers = followers

    async def blob(self, repository: Repository, digest: Digest) -> Body:  # noqa: ARG002 - the Protocol's
        """Return where it can be read, if it can."""
        found = await self._hub.sibling_blob(self._asker, self._followers, digest)
        if found is None:
            raise RegistryError(ErrorCode.BLOB_UNKNOWN, f"{digest} is not here")
        return found

    async def progress(self, fill: int, offset: int) -> Progress:
        """See `channel.Hub`."""
        return await self._hub.progress(fill, offset)

    async def stream(self, repository: Repository, digest: Digest, start: int) -> Stream:  # noqa: ARG002 - the same
        """Refuse what would be fetched for this reader alone.

        Raises:
            RegistryError: always.
        """
        raise RegistryError(ErrorCode.UNAVAILABLE, f"there is no room for {digest}", failure=Failure.RESET)
