"""What may not go from the store for a while, as another replica was promised that it stays."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from mirror.oci.digest import Digest

# With fewer promises nobody looks for those that are over.
_LEAST = 1000


class Holds:
    """Promises to keep content, and what is on its way out, of which none is made. One event loop."""

    def __init__(self, is_there: Callable[[Digest], bool]) -> None:
        """Promise what `is_there`."""
        self._is_there = is_there
        self._until: dict[Digest, float] = {}
        self._leaving: set[Digest] = set()
        self._most = _LEAST

    def hold(self, digest: Digest, seconds: float) -> bool:
        """Promise to keep a digest for so long; False, and nothing promised, if it is not there or about to go."""
        if digest in self._leaving or not self._is_there(digest):
            return False
        now = time.monotonic()
        if len(self._until) > self._most:
            self._until = {each: until for each, until in self._until.items() if until > now}
            self._most = max(_LEAST, 2 * len(self._until))
        self._until[digest] = max(self._until.get(digest, 0.0), now + seconds)
        return True

    def is_held(self, digest: Digest) -> bool:
        """Say whether somebody was promised that a digest stays."""
        return self._until.get(digest, 0.0) > time.monotonic()

    @contextlib.contextmanager
    def leaving(self, digest: Digest) -> Iterator[bool]:
        """Promise a digest to nobody meanwhile, or until `stay`; False if it was promised, or is about to go anyway."""
        if self.is_held(digest) or digest in self._leaving:
            yield False
            return
        self._leaving.add(digest)
        try:
            yield True
        finally:
            self.stay(digest)

    def stay(self, digest: Digest) -> None:
        """Let a digest that was about to go be promised again."""
        self._leaving.discard(digest)
