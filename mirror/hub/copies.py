"""Manifests that other replicas hold."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from mirror.fleet import Alone, Coordinator, Sibling
from mirror.hub.patience import Patience
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Repository
from mirror.source.sibling import Siblings
from mirror.source.upstream import FetchedManifest

_MOST_ASKED = 3
# After so long nobody else is asked: the upstream may have answered long since.
_LONGEST_SECONDS = 2.0


class Copies:
    """Manifests by digest from whoever has them, instead of from their upstream. The digest proves them."""

    def __init__(self, coordinator: Coordinator, siblings: Siblings | None) -> None:
        self._coordinator = coordinator
        self._siblings = siblings

    @classmethod
    def none(cls) -> Copies:
        """Return those of a replica without a fleet."""
        return cls(Alone("", ""), None)

    async def of(
        self, holder: str, repository: Repository, digest: Digest, patience: Patience | None
    ) -> FetchedManifest | None:
        """Return a manifest that a replica had when it said so; None if it cannot be had there now."""
        sibling = self._coordinator.siblings.get(holder)
        return None if sibling is None else await self._first([sibling], repository, digest, patience)

    async def of_any(self, repository: Repository, digest: Digest, patience: Patience | None) -> FetchedManifest | None:
        """Return a manifest that any replica has; None if it cannot be had from them."""
        return await self._first(await self._coordinator.holders(digest), repository, digest, patience)

    async def has_any(self, digest: Digest) -> bool:
        """Say whether a replica is thought to have a digest."""
        return bool(self._coordinator.siblings) and bool(await self._coordinator.holders(digest))

    async def _first(
        self, siblings: Sequence[Sibling], repository: Repository, digest: Digest, patience: Patience | None
    ) -> FetchedManifest | None:
        if self._siblings is None:
            return None
        until = time.monotonic() + _LONGEST_SECONDS
        with contextlib.nullcontext() if patience is None else patience.elsewhere():
            for sibling in self._siblings.order(siblings)[:_MOST_ASKED]:
                if time.monotonic() > until:
                    break
                with contextlib.suppress(RegistryError):
                    return FetchedManifest(digest, *await self._siblings.manifest(sibling, repository, digest))
        return None
