"""What half and twice the disk would have served: small models of such disks, fed with a sample of the requests. Pure.

Of each object a share of its size decides whether it is in the sample, by its hash: of large objects all or most, of
small ones few, each of which then stands for many. So the models hold a few thousand objects, however large the disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

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

    `requested` bytes were asked for since the models began; all shares are 0 where nothing was.
    """

    requested: int = 0
    half: float = 0.0
    same: float = 0.0
    double: float = 0.0


class _Disk(msgspec.Struct, array_like=True):
    """What one model holds: digest, size and last use."""

    missed: float
    objects: list[tuple[str, int, float]]


class _Memory(msgspec.Struct, array_like=True):
    """What a ghost knows, and of which disk."""

    version: Literal[1]
    capacity: int
    low_mark: float
    requested: int
    disks: list[_Disk]


class Ghost:
    """Watches the requests that a replica sees. At most about 1.5 MiB."""

    def __init__(self, capacity: int, low_mark: float, popularity: Popularity) -> None:
        """Model a disk of `capacity` bytes, evicted down to a share `low_mark` of it by what `popularity` tells."""
        self._capacity = capacity
        self._low_mark = low_mark
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

    def dump(self) -> bytes:
        """Return all of it, for `load`."""
        disks = [model.dump() for model in self._models]
        memory = _Memory(1, self._capacity, self._low_mark, self._requested, disks)
        return msgspec.msgpack.encode(memory, enc_hook=str)

    def load(self, data: bytes) -> bool:
        """Take in what the ghost of such a disk returned by `dump`; anything else is False, and changes nothing."""
        try:
            memory = msgspec.msgpack.decode(data, type=_Memory)
        except (msgspec.MsgspecError, ValueError):
            return False
        is_of_such = (memory.capacity, memory.low_mark) == (self._capacity, self._low_mark)
        if not is_of_such or len(memory.disks) != len(self._models):
            return False
        self._requested = memory.requested
        for model, disk in zip(self._models, memory.disks, strict=True):
            model.load(disk)
        return True

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

    def dump(self) -> _Disk:
        return _Disk(self.missed, [(digest, size, used) for digest, (size, used) in self._objects.items()])

    def load(self, disk: _Disk) -> None:
        self.missed = disk.missed
        self._objects = {Digest(digest): (size, used) for digest, size, used in disk.objects}
        self._taken = sum(self._room(size) for size, _ in self._objects.values())

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
