"""A replica's disk: what it holds, and what the janitor's plan has go between the high and the low mark."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from mirror.eviction.plan import Candidate, Plan
from mirror.eviction.popularity import Popularity
from mirror.oci.digest import Digest
from tests.benchmarks.eviction.traces import Request, Trace

LOW_MARK = 0.9
_START = 0.5
_SLICE = 256


@dataclasses.dataclass(slots=True)
class _Held:
    size: int
    used: float


class Disk:
    """Takes in what is asked for and not there.

    Like the janitor it begins to evict in the middle between a share `low_mark` of `capacity` bytes and all of it, and
    ends at the low mark.
    """

    def __init__(
        self, capacity: float, digests: Mapping[int, Digest], popularity: Popularity, low_mark: float = LOW_MARK
    ) -> None:
        self.held: dict[Digest, _Held] = {}
        self.used = 0
        self.has_evicted = False
        self.capacity = capacity
        self.low = capacity * low_mark
        self.trigger = self.low + (capacity - self.low) * _START
        self.popularity = popularity
        self._digests = digests

    def request(self, request: Request) -> bool:
        """Answer; True if it was there."""
        digest = self._digests[request.key]
        self.popularity.note(digest, request.at)
        held = self.held.get(digest)
        if held is not None:
            held.used = request.at
            return True
        if request.size <= self.low:
            if self.used + request.size > self.trigger:
                self.evict(request)
            self.take(digest, request.size, request.at)
        return False

    def evict(self, coming: Request) -> None:
        """Make room down to the low mark."""
        for candidate in self.coldest(coming.at):
            if self.used + coming.size <= self.low:
                return
            self.drop(candidate.digest)

    def coldest(self, now: float) -> Iterator[Candidate]:
        """Yield what may go, in the order of the janitor's plan."""
        for candidates in self.plan(now).coldest(_SLICE):
            yield from candidates

    def plan(self, now: float) -> Plan:
        """Return what the janitor would plan now."""
        plan = Plan(now)
        for digest, held in self.held.items():
            plan.add(digest, held.size, held.used, self.popularity.of(digest, now))
        plan.settle()
        return plan

    def take(self, digest: Digest, size: int, now: float) -> None:
        """Hold an object from now on."""
        self.held[digest] = _Held(size, now)
        self.used += size

    def drop(self, digest: Digest) -> None:
        """Hold an object no more."""
        self.used -= self.held.pop(digest).size
        self.has_evicted = True


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The byte hit ratio of one replica, and the share of its disk that it held once that was full, on average."""

    ratio: float
    held: float


def replay(trace: Trace, capacity: float) -> Outcome:
    """Have one replica answer a trace."""
    disk = Disk(capacity, trace.digests, Popularity())
    found, held, full = 0, 0.0, 0
    for request in trace.requests:
        if disk.request(request):
            found += request.size
        if disk.has_evicted:
            held += disk.used
            full += 1
    return Outcome(found / trace.bytes, held / full / capacity if full else 1.0)
