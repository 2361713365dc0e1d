"""What the HEAD of each upstream is good for, learnt from what it answers."""

from __future__ import annotations

import time
from dataclasses import dataclass

from mirror.config import Upstream

_REMEMBERED_SECONDS = 3600.0
# Refusals that may pass, as some come now and then, say something only when they come in a row.
_PROOF = 3
_MOST_UPSTREAMS = 1000


@dataclass(slots=True)
class _Head:
    """How often it failed in a row where a GET did not, and until when (`time.monotonic`) it is not sent at all."""

    failures: int = 0
    useless_until: float = 0.0


class Heads:
    """Which upstreams tell where a tag points by GET alone."""

    def __init__(self) -> None:
        self._heads: dict[str, _Head] = {}

    def is_useless(self, upstream: Upstream) -> bool:
        """Say whether a HEAD need not be sent: a moment ago it told nothing."""
        return self._of(upstream).useless_until > time.monotonic()

    def has_failed_often(self, upstream: Upstream) -> bool:
        """Say whether it failed so often in a row that a GET may be worth the try."""
        return self._of(upstream).failures >= _PROOF

    def told(self, upstream: Upstream) -> None:
        """Note that a HEAD told where a tag points."""
        self._heads.pop(upstream.name, None)

    def failed(self, upstream: Upstream) -> None:
        """Note that a HEAD failed."""
        self._of(upstream).failures += 1

    def outdone(self, upstream: Upstream, *, is_certain: bool) -> None:
        """Note that a GET told what a HEAD did not; `is_certain` if it is what this upstream always does."""
        head = self._of(upstream)
        if is_certain or head.failures >= _PROOF:
            head.useless_until = time.monotonic() + _REMEMBERED_SECONDS

    def _of(self, upstream: Upstream) -> _Head:
        head = self._heads.get(upstream.name)
        if head is None:
            while len(self._heads) >= _MOST_UPSTREAMS:
                del self._heads[next(iter(self._heads))]
            head = self._heads[upstream.name] = _Head()
        return head
