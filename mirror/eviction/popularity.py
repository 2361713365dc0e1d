"""How often content is used, decayed. Pure."""

from __future__ import annotations

import math

import msgspec

from mirror.oci.digest import Digest

_HALF_LIFE_SECONDS = 86400.0
_MOST = 20_000


class Popularity:
    """Decayed counts of uses."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[float, float]] = {}

    def note(self, digest: Digest, when: float, times: int = 1) -> None:
        """Count so many uses at `when`, in seconds since the epoch."""
        count = self.of(digest, when) + times
        self._counts.pop(digest, None)
        self._counts[digest] = (count, when)
        if len(self._counts) > _MOST:
            del self._counts[next(iter(self._counts))]

    def of(self, digest: Digest, now: float) -> float:
        """Return the decayed count; 0 for what is unknown."""
        count, when = self._counts.get(digest, (0.0, now))
        return float(count * math.pow(0.5, max(0.0, now - when) / _HALF_LIFE_SECONDS))

    def dump(self) -> bytes:
        """Return all of it, for `load`."""
        return msgspec.msgpack.encode(self._counts)

    def load(self, data: bytes) -> None:
        """Take in what `dump` returned; anything else is as if there were nothing."""
        try:
            self._counts = msgspec.msgpack.decode(data, type=dict[str, tuple[float, float]])
        except (msgspec.DecodeError, ValueError):
            self._counts = {}
