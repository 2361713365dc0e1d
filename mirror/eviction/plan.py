"""What may go, and in which order. Pure."""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mirror.eviction.policy import score
from mirror.oci.digest import Digest

# Of the bytes that are held the most-used share that never goes for want of room.
PROTECTED_SHARE = 0.2
_SAMPLES = 1024
_BUCKETS = 64
_SHA256_BYTES = 32
# Of two that are used as often, the one used later counts as used more, by so much a second.
_RECENCY = 1e-12


class Candidate(NamedTuple):
    """Content that may go.

    `size` is what its blocks take in bytes, `score` lower for what is missed less, `popularity` its decayed uses,
    `idle` the seconds since its last use.
    """

    digest: Digest
    size: int
    score: float
    popularity: float
    idle: float


class Plan:
    """All that was held at one moment, coldest first, but for the most-used fifth of the bytes.

    It keeps numbers and packed digests, and sorts as far as it is asked: there may be hundreds of thousands.
    """

    def __init__(self, now: float) -> None:
        """Plan for what was used until `now`, in seconds since the epoch."""
        self._now = now
        self._keys = bytearray()
        self._longer: dict[int, Digest] = {}
        self._sizes = array("Q")
        self._popularity = array("d")
        self._idle = array("d")
        self._scores = array("d")
        self._order: list[array[int]] = []

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, digest: Digest, size: int, used: float, popularity: float) -> None:
        """Add content that takes `size` bytes and was last used at `used`."""
        idle = max(0.0, self._now - used)
        if digest.algorithm == "sha256":
            self._keys += bytes.fromhex(digest.hex)
        else:
            self._keys += bytes(_SHA256_BYTES)
            self._longer[len(self)] = digest
        self._sizes.append(size)
        self._popularity.append(popularity)
        self._idle.append(idle)
        self._scores.append(score(size, popularity, idle))

    def settle(self, leaving: int = 0) -> None:
        """Find out what is protected, and the order of the others: nothing is added from now on.

        The protected fifth is of what stays, once `leaving` bytes have gone.
        """
        protected = self._protected(sum(self._sizes) - leaving)
        order = _buckets(self._scores)
        self._order = [array("I", (place for place in bucket if not protected[place])) for bucket in order]

    def coldest(self, most: int) -> Iterator[list[Candidate]]:
        """Yield what may go, lowest score first, at most so many at once."""
        places: list[int] = []
        for bucket in self._order:
            places += sorted(bucket, key=self._scores.__getitem__)
            while len(places) >= most:
                yield [self._candidate(place) for place in places[:most]]
                del places[:most]
        if places:
            yield [self._candidate(place) for place in places]

    def unused(self, seconds: float, most: int) -> Iterator[list[Candidate]]:
        """Yield what was not used for so long, popular once or not, at most so many at once."""
        places = [place for place, idle in enumerate(self._idle) if idle > seconds]
        random.shuffle(places)  # replicas that go through the same in one order would ask about it at the same time
        for first in range(0, len(places), most):
            yield [self._candidate(place) for place in places[first : first + most]]

    def _candidate(self, place: int) -> Candidate:
        digest = self._longer.get(place)
        if digest is None:
            key = self._keys[place * _SHA256_BYTES : (place + 1) * _SHA256_BYTES]
            digest = Digest(f"sha256:{key.hex()}")
        return Candidate(digest, self._sizes[place], self._scores[place], self._popularity[place], self._idle[place])

    def _protected(self, staying: int) -> bytearray:
        """Return for each place whether it is among the most-used that together take at most a fifth of what stays."""
        protected = bytearray(len(self))
        room = int(staying * PROTECTED_SHARE)
        pairs = zip(self._popularity, self._idle, strict=True)
        use = array("d", (idle * _RECENCY - popularity for popularity, idle in pairs))
        for bucket in _buckets(use):
            for place in sorted(bucket, key=use.__getitem__):
                room -= self._sizes[place]
                if room < 0:
                    return protected
                protected[place] = 1
        return protected


def _buckets(values: Sequence[float]) -> list[array[int]]:
    """Return the places of all values, in groups each of which has lower values than the next.

    To sort all at once would hold up every other thread.
    """
    sample = sorted(values[:: max(1, len(values) // _SAMPLES)])
    cuts = sorted({sample[number * len(sample) // _BUCKETS] for number in range(1, _BUCKETS)} if sample else ())
    buckets = [array("I") for _ in range(len(cuts) + 1)]
    for place, value in enumerate(values):
        buckets[bisect_left(cuts, value)].append(place)
    return buckets
