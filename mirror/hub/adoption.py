"""What a tag points to now is brought in: at once, or as far as the upstream's quota goes."""

from __future__ import annotations

import asyncio

from mirror.config import Upstream
from mirror.hub.answers import Pointed
from mirror.hub.manifests import Held, Manifests
from mirror.hub.patience import Patience
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.manifest import platforms
from mirror.oci.reference import Repository
from mirror.source.upstream import Level, Quotas
from mirror.store import TagState

_RESERVE = 0.05


class Adoption:
    """Brings in manifests that tags moved to."""

    def __init__(self, manifests: Manifests, quotas: Quotas) -> None:
        self._manifests = manifests
        self._quotas = quotas
        self._turns: dict[str, asyncio.Lock] = {}

    async def adopt(
        self,
        upstream: Upstream,
        repository: Repository,
        state: TagState | None,
        pointed: Pointed,
        patience: Patience | None = None,
    ) -> Held:
        """Return the manifest that a tag points to now, fetched if it is not held; `state` is where it did before.

        Raises:
            RegistryError: it cannot be had; with `Failure.QUOTA` if the quota is too short for what has another answer.
        """
        held = self._manifests.held(repository, pointed.digest)
        if held is not None:
            return held
        if state is None or self._quotas.level(upstream) is Level.PLENTY:
            return await self._manifests.fetch(upstream, repository, pointed.digest, patience, holder=pointed.holder)
        async with self._turns.setdefault(upstream.url, asyncio.Lock()):
            return await self._adopt_sparingly(upstream, repository, state, pointed, patience)

    async def _adopt_sparingly(
        self, upstream: Upstream, repository: Repository, state: TagState, pointed: Pointed, patience: Patience | None
    ) -> Held:
        """Fetch a manifest together with those of the platforms that were pulled before, or nothing at all.

        A tag that moved to an index whose platforms can no longer be fetched would be worse than a stale one.
        """
        old = self._manifests.held(repository, state.digest)
        pulled = [] if old is None else [each for each in platforms(old.body) if self._is_held(repository, each.digest)]
        if not pointed.holder and not self._can_afford(upstream, 1 + len(pulled)):
            raise RegistryError(ErrorCode.TOOMANYREQUESTS, "the quota runs short", failure=Failure.QUOTA)
        held = await self._manifests.fetch(upstream, repository, pointed.digest, patience, holder=pointed.holder)
        wanted = {each.platform for each in pulled}
        for child in platforms(held.body):
            if child.platform in wanted and not self._is_held(repository, child.digest):
                await self._manifests.fetch(upstream, repository, child.digest, patience, holder=pointed.holder)
        return held

    def _can_afford(self, upstream: Upstream, amount: int) -> bool:
        remaining, limit = self._quotas.remaining(upstream), self._quotas.limit(upstream)
        return remaining is not None and limit is not None and remaining - amount >= limit * _RESERVE

    def _is_held(self, repository: Repository, digest: Digest) -> bool:
        return self._manifests.held(repository, digest) is not None
