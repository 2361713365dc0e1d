"""How often digests are used in the whole fleet."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from mirror.fleet import scripts
from mirror.fleet.copies import chunks
from mirror.fleet.keys import digest_key
from mirror.fleet.link import Away
from mirror.fleet.membership import Membership
from mirror.fleet.outbox import Outbox
from mirror.oci.digest import Digest

HALF_LIFE_SECONDS = 86_400
"""After this a use counts half."""

_SOON_SECONDS = 3.0
_BATCH = 250
_MOST_PENDING = 50_000


class Uses:
    """Counts on their way to Redis, and what they came to there."""

    def __init__(self, membership: Membership) -> None:
        self.outbox = Outbox(self._flush, _SOON_SECONDS)
        self._fleet = membership
        self._pending: dict[Digest, int] = {}

    def add(self, counts: Mapping[Digest, int]) -> None:
        """See `Coordinator.used`."""
        for digest, count in counts.items():
            if digest in self._pending or len(self._pending) < _MOST_PENDING:
                self._pending[digest] = self._pending.get(digest, 0) + count
        self.outbox.ring()

    async def popularity(self, digests: Sequence[Digest]) -> Mapping[Digest, float]:
        """See `Coordinator`."""
        found: dict[Digest, float] = {}
        with contextlib.suppress(Away):
            for some in chunks(digests, _BATCH):
                told = await self._fleet.ask(scripts.POPULARITY, HALF_LIFE_SECONDS * 1000, *map(digest_key, some))
                found.update((digest, float(score)) for digest, score in zip(some, told, strict=True) if score)
        return found

    async def _flush(self) -> None:
        while self._pending:
            some = {digest: self._pending[digest] for digest in list(self._pending)[:_BATCH]}
            parts = [part for digest, count in some.items() for part in (digest_key(digest), str(count))]
            await self._fleet.ask(scripts.USED, HALF_LIFE_SECONDS * 1000, *parts)
            for digest, count in some.items():
                self._pending[digest] -= count
                if self._pending[digest] <= 0:
                    del self._pending[digest]
