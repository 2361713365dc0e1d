"""The policies that ours is measured against, as libcachesim has them, on a disk that evicts one by one."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from random import Random

import libcachesim

from tests.benchmarks.eviction.traces import Request, Trace

_NEVER = 2**62
_HASH_POWER = 16
_SAMPLE = 128


def by_libcachesim(make: type[libcachesim.CacheBase]) -> Callable[[Trace, float], float]:
    """Return what replays a trace on a disk of so many bytes by one of libcachesim's policies."""

    def replay(trace: Trace, capacity: float) -> float:
        cache = make(cache_size=int(capacity), hashpower=_HASH_POWER)
        found = 0
        for request in trace.requests:
            asked = libcachesim.Request(obj_id=request.key, obj_size=request.size, clock_time=int(request.at))
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


def belady_size(trace: Trace, capacity: float) -> float:
    """Return what is found by who knows the future: of a sample that goes which is largest times longest not needed.

    libcachesim's own does not end on small disks with few objects.
    """
    random, used, found = Random(0), 0, 0
    held: list[int] = []
    places: dict[int, int] = {}
    needed: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for turn, (request, again) in enumerate(zip(trace.requests, _next_uses(trace.requests), strict=True)):
        key = request.key
        needed[key], sizes[key] = again, request.size
        if key in places:
            found += request.size
            continue
        if request.size > capacity:
            continue
        while used + request.size > capacity:
            sample = random.choices(held, k=_SAMPLE)
            victim = max(sample, key=lambda each: sizes[each] * (needed[each] - turn))
            place = places.pop(victim)
            if (last := held.pop()) != victim:
                held[place], places[last] = last, place
            used -= sizes[victim]
        places[key] = len(held)
        held.append(key)
        used += request.size
    return found / trace.bytes


REFERENCES: dict[str, Callable[[Trace, float], float]] = {
    "LRU": by_libcachesim(libcachesim.LRU),
    "LFU-DA": lfu_da,
    "GDSF": by_libcachesim(libcachesim.GDSF),
    "S3-FIFO": by_libcachesim(libcachesim.S3FIFO),
    "SIEVE": by_libcachesim(libcachesim.Sieve),
}
# Not a policy: it knows the future. Shown beside the others.
OPTIMUM = "BeladySize"


def _next_uses(requests: Sequence[Request]) -> list[int]:
    """Return for each request the number of the next one for the same object."""
    later: dict[int, int] = {}
    found = [_NEVER] * len(requests)
    for number in range(len(requests) - 1, -1, -1):
        found[number] = later.get(requests[number].key, _NEVER)
        later[requests[number].key] = number
    return found
