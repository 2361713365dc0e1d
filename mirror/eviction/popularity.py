"""How much content is in use, decayed: a table of fixed size, which also remembers what has gone. Pure.

Two counters each. The lasting one counts occasions: uses that follow one another closely are hardly more than one, as a
hundred machines of one job are not a hundred jobs. The brief one counts every use, for as long as a burst lasts.
The constants were chosen by measurement: docs/eviction.md.
"""

from __future__ import annotations

import math
import zlib
from array import array

from mirror.oci.digest import Digest

_LASTING_SECONDS = 1.5 * 86400.0
_BRIEF_SECONDS = 540.0
# Of two uses so far apart the second is half an occasion of its own.
_APART_SECONDS = 900.0
# What is used within a burst is worth so many occasions long ago.
_BRIEF_WORTH = 6.0
# A first use tells little: most of what is used once is not used again.
_FIRST_LASTING = 0.6
_FIRST_BRIEF = 0.2
# After so many times its usual pause, content that was in use regularly is most likely not in use any more.
_USUAL_PAUSES = 6.0
# What rested for longer than this is the less likely to be wanted again, however much it was used: it was replaced.
_REPLACED_SECONDS = 2.0 * 86400.0

_WAYS = 8
_BUCKETS = 1 << 15
_SLOTS = _WAYS * _BUCKETS
_HEADER = b"popularity 1\n"
_CHECKSUM_BYTES = 4


class Popularity:
    """Counters for the 262,144 digests that were used last, in 4 MiB.

    Digests share buckets of eight by their hash; in a full one the coldest makes way. What is not remembered counts
    as never used.
    """

    def __init__(self) -> None:
        self._marks = array("I", bytes(4 * _SLOTS))
        self._times = array("I", bytes(4 * _SLOTS))
        self._lasting = array("f", bytes(4 * _SLOTS))
        self._brief = array("f", bytes(4 * _SLOTS))

    def note(self, digest: Digest, when: float, times: int = 1) -> float:
        """Count uses, the last one at `when`, in seconds since the epoch. Return which part of an occasion that is."""
        first, mark = _place(digest)
        slot = self._find(first, mark)
        if slot is None:
            slot = min(range(first, first + _WAYS), key=lambda each: self._worth(each, when))
            self._marks[slot] = mark
            self._lasting[slot] = occasion = _FIRST_LASTING
            self._brief[slot] = _FIRST_BRIEF + times - 1
        else:
            apart = max(0.0, when - self._times[slot])
            occasion = 1.0 - 0.5 ** (apart / _APART_SECONDS)
            self._lasting[slot] = _decayed(self._lasting[slot], apart, _LASTING_SECONDS) + occasion
            self._brief[slot] = _decayed(self._brief[slot], apart, _BRIEF_SECONDS) + times
        self._times[slot] = max(self._times[slot], int(when))
        return occasion

    def of(self, digest: Digest, now: float) -> float:
        """Return how much it is in use; 0 for what is unknown."""
        slot = self._find(*_place(digest))
        return 0.0 if slot is None else self._worth(slot, now)

    def dump(self) -> bytes:
        """Return all of it, for `load`."""
        body = b"".join(part.tobytes() for part in (self._marks, self._times, self._lasting, self._brief))
        return _HEADER + zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big") + body

    def load(self, data: bytes) -> None:
        """Take in what `dump` returned; anything else changes nothing."""
        begin = len(_HEADER) + _CHECKSUM_BYTES
        body = memoryview(data)[begin:]
        part = 4 * _SLOTS
        if not data.startswith(_HEADER) or len(body) != 4 * part:
            return
        if zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big") != data[len(_HEADER) : begin]:
            return
        self._marks, self._times = array("I", bytes(body[:part])), array("I", bytes(body[part : 2 * part]))
        self._lasting, self._brief = array("f", bytes(body[2 * part : 3 * part])), array("f", bytes(body[3 * part :]))

    def _find(self, first: int, mark: int) -> int | None:
        for slot in range(first, first + _WAYS):
            if self._marks[slot] == mark and self._times[slot]:
                return slot
        return None

    def _worth(self, slot: int, now: float) -> float:
        idle = max(0.0, now - self._times[slot])
        return _worth(self._lasting[slot], self._brief[slot], idle) if self._times[slot] else 0.0


def once(idle: float) -> float:
    """Return how much something is in use that was used for the first time so many seconds ago."""
    return _worth(_FIRST_LASTING, _FIRST_BRIEF, idle)


def _worth(lasting: float, brief: float, idle: float) -> float:
    pauses = idle * lasting * math.log(2.0) / _LASTING_SECONDS
    worth = _decayed(lasting, idle, _LASTING_SECONDS) + _BRIEF_WORTH * _decayed(brief, idle, _BRIEF_SECONDS)
    return worth / (1.0 + (pauses / _USUAL_PAUSES) ** 4) / (1.0 + (idle / _REPLACED_SECONDS) ** 4)


def _decayed(count: float, seconds: float, half_life: float) -> float:
    return count * math.pow(0.5, seconds / half_life)


def _place(digest: Digest) -> tuple[int, int]:
    """Return the first slot of a digest's bucket, and what tells it from others there."""
    hashed = int(digest.hex[:16], 16)
    return (hashed >> 32) % _BUCKETS * _WAYS, hashed & 0xFFFFFFFF
