"""Tags that are not asked about for a while because the upstream's last word on them stands."""

from __future__ import annotations

import time

from mirror.oci.errors import Failure
from mirror.oci.reference import Repository, Tag

_MOST = 10_000


class Deferrals:
    """Why each tag is answered from what is held, and until when."""

    def __init__(self) -> None:
        self._deferred: dict[tuple[Repository, Tag], tuple[float, Failure]] = {}

    def reason(self, repository: Repository, tag: Tag) -> Failure | None:
        """Return why a tag is not asked about now, None if it may be."""
        until, failure = self._deferred.get((repository, tag), (0.0, None))
        return failure if time.monotonic() < until else None

    def clear(self) -> None:
        """Have every tag asked about again."""
        self._deferred.clear()

    def put(self, repository: Repository, tag: Tag, failure: Failure, seconds: float) -> None:
        """Let a tag be for some seconds."""
        self._deferred.pop((repository, tag), None)
        self._deferred[repository, tag] = (time.monotonic() + seconds, failure)
        while len(self._deferred) > _MOST:
            del self._deferred[next(iter(self._deferred))]
