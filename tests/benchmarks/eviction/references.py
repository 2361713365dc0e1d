"""The policies that ours is measured against, as libcachesim has them, on a disk that evicts one by one."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import libcachesim

from tests.benchmarks.eviction.traces import Request, Trace

_NEVER = 2**62
_HASH_POWER = 16


def _by_libcachesim(make: type[libcachesim.CacheBase]) -> Callable[[Trace, float], float]:
    def replay(trace: Trace, capacity: float) -> float:
        cache = make(cache_size=int(capacity), hashpower=_HASH_POWER)
        found = 0
        for request, again in zip(trace.requests, _next_uses(trace.requests), strict=True):
            asked = libcachesim.Request(
                obj_id=request.key, obj_size=request.size, clock_time=int(request.at), next_access_vtime=again
            )
            if cache.get(asked):
                found += request.size
        return found / trace.bytes

    return replay


def lfu_da(trace: Trace, capacity: float) -> float:
    """Return the byte hit ratio of LFU with dynamic ageing (Arlitt and others, 2000).

    libcachesim's own walks through every count between two priorities, and takes hours where storms make them large;
    tests/benchmarks/eviction/ holds this one against it.
    """
    age, used, found = 0, 0, 0
    counts: dict[int, int] = {}
    priorities: dict[int, int] = {}
    sizes: dict[int, int] = {}
    queue: list[tuple[int, int, int]] = []
    for turn, request in enumerate(trace.requests):
        key = request.key
        if key in priorities:
            found += request.size
            counts[key] += 1
        elif request.size > capacity:
            continue
        else:
            while used + request.size > capacity:
                priority, _, victim = heapq.heappop(queue)
                if priorities.get(victim) == priority:
                    age = priority
                    used -= sizes[victim]
                    del priorities[victim]
            counts[key], sizes[key] = 1, request.size
            used += request.size
        priorities[key] = counts[key] + age
        heapq.heappush(queue, (priorities[key], turn, key))
    return found / trace.bytes


REFERENCES: dict[str, Callable[[Trace, float], float]] = {
    "LRU": _by_libcachesim(libcachesim.LRU),
    "LFU-DA": lfu_da,
    "GDSF": _by_libcachesim(libcachesim.GDSF),
    "S3-FIFO": _by_libcachesim(libcachesim.S3FIFO),
    "SIEVE": _by_libcachesim(libcachesim.Sieve),
}
# Not a policy: it knows the future. Shown beside the others.
OPTIMUM = "BeladySize"
belady_size = _by_libcachesim(libcachesim.BeladySize)


def _next_uses(requests: Sequence[Request]) -> list[int]:
    """Return for each request the number of the next one for the same object."""
    later: dict[int, int] = {}
    found = [_NEVER] * len(requests)
    for number in range(len(requests) - 1, -1, -1):
        found[number] = later.get(requests[number].key, _NEVER)
        later[requests[number].key] = number
    return found
