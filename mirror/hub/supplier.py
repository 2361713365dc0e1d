"""What siblings may have of this replica: what it has, or is just getting. Nothing is started for them."""

from __future__ import annotations

from collections.abc import Sequence

from mirror.channel import Filling, ManifestFound, Whole
from mirror.fleet import Coordinator
from mirror.hub.blobs import Blobs
from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.oci.manifest import is_manifest, media_type_of
from mirror.oci.reference import Repository
from mirror.source.upstream.manifests import LONGEST_MANIFEST
from mirror.store import Store

_HIT = CacheStatus(Outcome.HIT)


class Supplier:
    """Answers siblings. Links and verdicts are the asker's: it decides whether its clients may have what it gets."""

    def __init__(self, store: Store, blobs: Blobs, coordinator: Coordinator) -> None:
        self._store = store
        self._blobs = blobs
        self._coordinator = coordinator

    async def blob(self, asker: str, followers: Sequence[str], digest: Digest) -> Whole | Filling | None:
        """See `channel.Hub.sibling_blob`."""
        size = self._store.content.size(digest)
        return Whole(size, _HIT) if size is not None else await self._blobs.offer(asker, followers, digest)

    def manifest(self, repository: Repository, digest: Digest) -> ManifestFound | None:
        """See `channel.Hub.sibling_manifest`."""
        size = self._store.content.size(digest)
        if size is not None and size > LONGEST_MANIFEST:
            return None
        body = self._store.shelf.manifest(digest)
        if body is None or not is_manifest(body):
            return None
        link = self._store.shelf.link(repository, digest)
        media_type = None if link is None else link.media_type
        return ManifestFound(digest, media_type or media_type_of(body), body, _HIT)

    async def has(self, digest: Digest, seconds: float) -> bool:
        """See `channel.Hub.sibling_has`.

        Raises:
            RegistryError: it is here, and may be gone in a moment: who asks shall neither rely on it nor say it is not.
        """
        if digest in self._store.naming:
            # A name that is only just given may not outlast a power loss.
            raise RegistryError(ErrorCode.UNAVAILABLE, f"{digest} has only just come", retry_after=1)
        if self._store.content.size(digest) is None:
            return False
        if seconds > 0:
            if not self._store.holds.hold(digest, seconds):
                raise RegistryError(ErrorCode.UNAVAILABLE, f"{digest} is about to go", retry_after=1)
            await self._coordinator.hold([digest], seconds)
        return True
