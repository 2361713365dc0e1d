"""What half and twice the disk would have served: small models of such disks, fed with a sample of the requests. Pure.

Of each object a share of its size decides whether it is in the sample, by its hash: of large objects all or most, of
small ones few, each of which then stands for many. So the models hold a few thousand objects, however large the disk.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mirror.eviction.policy import score
from mirror.eviction.popularity import Popularity
from mirror.oci.digest import Digest

_SHARES = (0.5, 1.0, 2.0)
# What the model of twice the disk holds at most.
_MOST_OBJECTS = 4096
_HASH_BITS = 64


class Advice(msgspec.Struct, frozen=True):
    """The share of the requested bytes that half, the same and twice the disk would have served from what they held.

    `requested` bytes were asked for since the replica started; all shares are 0 where nothing was.
    """

    requested: int = 0
    half: float = 0.0
    same: float = 0.0
    double: float = 0.0


class Ghost:
    """Watches the requests that a replica sees. At most about 1.5 MiB."""

    def __init__(self, capacity: int, low_mark: float, popularity: Popularity) -> None:
        """Model a disk of `capacity` bytes, evicted down to a share `low_mark` of it by what `popularity` tells."""
        self._grain = max(max(_SHARES) * capacity / _MOST_OBJECTS, 1.0)
        self._models = [
            _Model(share * capacity, share * capacity * low_mark, self._grain, popularity) for share in _SHARES
        ]
        self._requested = 0

    def is_sampled(self, digest: Digest, size: int) -> bool:
        """Say whether an object of `size` bytes is in the sample."""
        return int(digest.hex[: _HASH_BITS // 4], 16) * self._grain < size * 2.0**_HASH_BITS

    def begin(self, held: Iterable[tuple[Digest, int, float]]) -> None:
        """Begin with what the disk holds: digests, sizes in bytes and last uses; nothing of it counts as a request."""
        for digest, size, used in held:
            if self.is_sampled(digest, size):
                for model in self._models:
                    model.use(digest, size, used)

    def request(self, digest: Digest, size: int, when: float, times: int = 1) -> None:
        """Count that an object of `size` bytes was asked for, the last time at `when`, in seconds since the epoch."""
        self._requested += size * times
        if times > 0 and self.is_sampled(digest, size):
            for model in self._models:
                model.request(digest, size, when)

    def advice(self) -> Advice:
        """Return what the models found by now."""
        if not self._requested:
            return Advice()
        half, same, double = (max(0.0, 1.0 - model.missed / self._requested) for model in self._models)
        return Advice(self._requested, half, same, double)


class _Model:
    """A disk between its marks. An object takes its size, or that of all those for which it stands.

    Only misses are counted. Hits are the rest of what was asked for, which is known: whether one of the objects that
    are asked for most happens to be in the sample changes nothing then.
    """

    def __init__(self, high: float, low: float, grain: float, popularity: Popularity) -> None:
        self.missed = 0.0
        self._high = high
        self._low = low
        self._grain = grain
        self._popularity = popularity
        self._objects: dict[Digest, tuple[int, float]] = {}
        self._taken = 0.0

    def request(self, digest: Digest, size: int, when: float) -> None:
        if digest not in self._objects:
            self.missed += self._room(size)
        self.use(digest, size, when)

    def use(self, digest: Digest, size: int, when: float) -> None:
        if digest not in self._objects:
            room = self._room(size)
            if room > self._low:
                return
            if self._taken + room > self._high:
                self._evict(room, when)
            self._taken += room
        self._objects[digest] = (size, when)

    def _evict(self, room: float, now: float) -> None:
        scores = {
            digest: score(size, self._popularity.of(digest, now), max(0.0, now - used))
            for digest, (size, used) in self._objects.items()
        }
        for digest in sorted(scores, key=scores.__getitem__):
            if self._taken + room <= self._low:
                return
            self._taken -= self._room(self._objects.pop(digest)[0])

    def _room(self, size: int) -> float:
        return max(float(size), self._grain)
