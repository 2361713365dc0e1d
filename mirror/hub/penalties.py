"""Digests that an upstream sent wrongly: each is left alone, the longer the more often that happened."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

from mirror.config import Upstream
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, RegistryError

_FIRST_SECONDS = 10.0
_LONGEST_SECONDS = 3600.0
# For so long clients wait.
_LONGEST_WAIT = 25.0
_MOST = 10_000


class _Penalty(NamedTuple):
    """Until when, on the monotonic clock, a digest that did not verify is not fetched in full again."""

    until: float
    seconds: float


class Penalties:
    """Those of all upstreams."""

    def __init__(self) -> None:
        self._penalties: dict[tuple[str, Digest], _Penalty] = {}

    def punish(self, upstream: Upstream, digest: Digest) -> None:
        """Note that what an upstream sent in full did not verify."""
        before = self._penalties.pop((upstream.url, digest), _Penalty(0, _FIRST_SECONDS / 2))
        seconds = min(before.seconds * 2, _LONGEST_SECONDS)
        self._penalties[upstream.url, digest] = _Penalty(time.monotonic() + seconds, seconds)
        while len(self._penalties) > _MOST:
            del self._penalties[next(iter(self._penalties))]

    def lift(self, upstream: Upstream, digest: Digest) -> None:
        """Note that it did."""
        self._penalties.pop((upstream.url, digest), None)

    def left(self, upstream: Upstream, digest: Digest) -> float:
        """Return for how many seconds a client must wait before the next full try.

        Raises:
            RegistryError: for longer than a client waits.
        """
        left = self._penalties.get((upstream.url, digest), _Penalty(0, 0)).until - time.monotonic()
        if left > _LONGEST_WAIT:
            text = f"what the upstream last sent for {digest} did not have that digest; it is asked again later"
            raise RegistryError(ErrorCode.UNAVAILABLE, text, retry_after=math.ceil(left))
        return left
