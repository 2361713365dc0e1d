"""A disk: what it holds, and what goes by the plan and the scores of a replica's janitor."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from mirror.eviction.plan import Candidate, Plan
from mirror.eviction.popularity import Popularity
from mirror.oci.digest import Digest
from tests.benchmarks.eviction.traces import Request, Trace

# A ranking serves until this share of the disk has gone by it: to rank for each object would take hours.
_RANKED_SHARE = 0.02
_SLICE = 16


@dataclasses.dataclass(frozen=True)
class Marks:
    """How full a disk is when room is made, and how full thereafter, in shares of it."""

    begin: float
    end: float


# As the references: the disk is always full, and what goes is just enough for what comes.
JUST_ENOUGH = Marks(1.0, 1.0)
# As a replica by default: from the middle between its marks to the low one.
BATCHES = Marks(0.95, 0.9)


@dataclasses.dataclass(slots=True)
class _Held:
    size: int
    used: float


class Disk:
    """Takes in what is asked for and not there, and never holds more than `capacity` bytes."""

    def __init__(
        self, capacity: float, digests: Mapping[int, Digest], popularity: Popularity, marks: Marks = BATCHES
    ) -> None:
        self.held: dict[Digest, _Held] = {}
        self.used = 0
        self.capacity = capacity
        self.begin = capacity * marks.begin
        self.end = capacity * marks.end
        self.popularity = popularity
        self._digests = digests
        self._ranking: Iterator[Candidate] = iter(())
        self._ranked_at = 0.0
        self._gone = 0

    def request(self, request: Request) -> bool:
        """Answer; True if it was there."""
        digest = self._digests[request.key]
        self.popularity.note(digest, request.at)
        held = self.held.get(digest)
        if held is not None:
            held.used = request.at
            return True
        if request.size <= self.end:
            if self.used + request.size > self.begin:
                self.evict(request)
            if self.used + request.size <= self.capacity:
                self.take(digest, request.size, request.at)
        return False

    def evict(self, coming: Request) -> None:
        """Make room for what comes, as far as anything may go."""
        while self.used + coming.size > self.end:
            candidate = self._coldest(coming)
            if candidate is None:
                return
            self.drop(candidate.digest)

    def _coldest(self, coming: Request) -> Candidate | None:
        """Return what goes next by a ranking that is recent enough; None if nothing may."""
        is_of_now = self._ranked_at == coming.at
        if is_of_now or self._gone < _RANKED_SHARE * self.capacity:
            candidate = next(self._ranking, None)
            if candidate is not None or is_of_now:
                return candidate
        self._ranking, self._ranked_at, self._gone = self.ranking(coming), coming.at, 0
        return next(self._ranking, None)

    def ranking(self, coming: Request) -> Iterator[Candidate]:
        """Yield what may go as something comes, in the order of the janitor's plan, but for what is used meanwhile."""
        for candidates in self._plan(coming).coldest(_SLICE):
            for each in candidates:
                held = self.held.get(each.digest)
                if held is not None and held.used <= coming.at:
                    yield each

    def _plan(self, coming: Request) -> Plan:
        plan = Plan(coming.at)
        for digest, held in self.held.items():
            plan.add(digest, held.size, held.used, self.popularity.of(digest, coming.at))
        plan.settle(max(0, int(self.used + coming.size - self.end)))
        return plan

    def take(self, digest: Digest, size: int, now: float) -> None:
        """Hold an object from now on."""
        self.held[digest] = _Held(size, now)
        self.used += size

    def drop(self, digest: Digest) -> None:
        """Hold an object no more."""
        size = self.held.pop(digest).size
        self.used -= size
        self._gone += size


def replay(trace: Trace, capacity: float, marks: Marks) -> float:
    """Return the byte hit ratio of one replica."""
    disk = Disk(capacity, trace.digests, Popularity(), marks)
    return sum(request.size for request in trace.requests if disk.request(request)) / trace.bytes
