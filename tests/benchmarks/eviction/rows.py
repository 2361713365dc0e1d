"""What is measured: each trace on disks of several sizes, by each policy, and the claims that are made for ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from tests.benchmarks.eviction.disk import BATCHES, JUST_ENOUGH, replay
from tests.benchmarks.eviction.references import OPTIMUM, REFERENCES, belady_size
from tests.benchmarks.eviction.traces import Trace

OURS = "layover"
# Not judged: what ours finds where it makes room as a replica does.
BATCHED = "layover, marks"
SIZES = (0.05, 0.1, 0.25, 0.5)
# What is claimed of the byte hit ratio: never so much below LRU's, never below such a share of the best one's.
MOST_BELOW_LRU = 0.005
LEAST_OF_BEST = 0.95
# In smaller traces a few large layers decide: 0.5 points are one or two of them.
LEAST_SCALE = 0.4


@dataclasses.dataclass(frozen=True)
class Row:
    """The byte hit ratios of one trace on a disk that holds a share `size` of its working set: as much for each."""

    trace: str
    seed: int | None
    size: float
    requested: int
    ratios: dict[str, float]

    @property
    def best(self) -> float:
        """The best reference's."""
        return max(self.ratios[name] for name in REFERENCES)

    @property
    def over_lru(self) -> float:
        """How far ours is above LRU's."""
        return self.ratios[OURS] - self.ratios["LRU"]

    @property
    def of_best(self) -> float:
        """Ours as a share of the best reference's."""
        return self.ratios[OURS] / self.best if self.best else 1.0

    def upstream_bytes(self, policy: str) -> int:
        """Return what a policy fetches from the upstream."""
        return round(self.requested * (1.0 - self.ratios[policy]))


def measure(trace: Trace, seed: int | None, sizes: Sequence[float] = SIZES) -> Iterator[Row]:
    """Replay a trace by every policy on each size of disk."""
    for size in sizes:
        capacity = trace.working_set * size
        ratios = {OURS: replay(trace, capacity, JUST_ENOUGH)}
        ratios |= {name: answer(trace, capacity) for name, answer in REFERENCES.items()}
        ratios |= {BATCHED: replay(trace, capacity, BATCHES), OPTIMUM: belady_size(trace, capacity)}
        yield Row(trace.name, seed, size, trace.bytes, ratios)


def broken_claims(rows: Iterable[Row]) -> list[str]:
    """Return what does not hold of what is claimed for the traces that are shipped."""
    found = []
    over_lru: dict[int | None, list[float]] = {}
    for row in rows:
        over_lru.setdefault(row.seed, []).append(row.over_lru)
        name = f"{row.trace}, seed {row.seed}, {row.size:.0%}"
        if row.over_lru < -MOST_BELOW_LRU:
            found.append(f"{name}: {100 * row.over_lru:+.2f} points of LRU")
        if row.of_best < LEAST_OF_BEST:
            found.append(f"{name}: {row.of_best:.1%} of the best")
    means = {seed: sum(each) / len(each) for seed, each in over_lru.items()}
    found += [f"seed {seed}: on average {100 * mean:+.2f} points of LRU" for seed, mean in means.items() if mean <= 0]
    return found
