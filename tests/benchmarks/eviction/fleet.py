"""Two regions of three replicas: each for itself, and as a fleet. A model: no time passes, nothing fails."""

from __future__ import annotations

import dataclasses

from mirror.eviction.popularity import Popularity
from mirror.oci.digest import Digest
from tests.benchmarks.eviction.disk import Disk
from tests.benchmarks.eviction.traces import Request, Trace

REGIONS = 2
REPLICAS = 6


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Where the bytes that clients asked for came from."""

    requested: int
    local: int
    region: int
    elsewhere: int
    upstream: int


def apart(trace: Trace, capacity: float) -> Traffic:
    """Have six replicas answer, each with such a disk, that know nothing of one another."""
    disks = [Disk(capacity, trace.digests, Popularity()) for _ in range(REPLICAS)]
    local = sum(request.size for request in trace.requests if disks[request.client % REPLICAS].request(request))
    return Traffic(trace.bytes, local, 0, 0, trace.bytes - local)


def together(trace: Trace, capacity: float) -> Traffic:
    """Have them act as a fleet: what a sibling holds comes from there, and last copies go last."""
    fleet = _Fleet(trace, capacity)
    came = [0, 0, 0, 0]
    for request in trace.requests:
        came[fleet.request(request)] += request.size
    return Traffic(trace.bytes, *came)


_LOCAL, _REGION, _ELSEWHERE, _UPSTREAM = range(4)


class _Member(Disk):
    """A disk that asks the others before it lets go."""

    def __init__(self, fleet: _Fleet, capacity: float, trace: Trace, popularity: Popularity) -> None:
        super().__init__(capacity, trace.digests, popularity)
        self._fleet = fleet

    def evict(self, coming: Request) -> None:
        """Let spares go first; then offer last copies, coldest first, and let them go."""
        ranking = list(self.ranking(coming))
        spares = [each for each in ranking if self._fleet.copies(each.digest) > 1]
        last = [each for each in ranking if self._fleet.copies(each.digest) <= 1]
        for candidate in spares + last:
            if self.used + coming.size <= self.end:
                return
            if self._fleet.copies(candidate.digest) <= 1:
                self._fleet.offer(self, candidate.digest, coming.at)
            self.drop(candidate.digest)


class _Fleet:
    def __init__(self, trace: Trace, capacity: float) -> None:
        popularity = Popularity()
        self._digests = trace.digests
        self._members = [_Member(self, capacity, trace, popularity) for _ in range(REPLICAS)]

    def request(self, request: Request) -> int:
        """Answer, and say from where."""
        place = request.client % REPLICAS
        holders = [other for other, each in enumerate(self._members) if self._digests[request.key] in each.held]
        if self._members[place].request(request):
            return _LOCAL
        if any(other % REGIONS == place % REGIONS for other in holders):
            return _REGION
        return _ELSEWHERE if holders else _UPSTREAM

    def copies(self, digest: Digest) -> int:
        return sum(digest in each.held for each in self._members)

    def offer(self, giver: _Member, digest: Digest, now: float) -> None:
        """Have the member with most room take a copy, if it stays well under its marks."""
        taker = min(self._members, key=lambda each: each.used)
        size = giver.held[digest].size
        if taker is not giver and taker.used + size <= 0.8 * taker.capacity:
            taker.take(digest, size, now)
