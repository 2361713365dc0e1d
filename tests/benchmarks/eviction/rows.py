"""What is measured: each trace on disks of several sizes, by each policy, and the claims that are made for ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from tests.benchmarks.eviction.disk import replay
from tests.benchmarks.eviction.references import OPTIMUM, REFERENCES, belady_size
from tests.benchmarks.eviction.traces import Trace

OURS = "layover"
WHOLE = "LRU, whole disk"
SIZES = (0.05, 0.1, 0.25, 0.5)
# What is claimed of the byte hit ratio: never so much below LRU's, never below such a share of the best one's.
MOST_BELOW_LRU = 0.005
LEAST_OF_BEST = 0.95


@dataclasses.dataclass(frozen=True)
class Row:
    """The byte hit ratios of one trace on a disk that holds a share `size` of its working set.

    `held` is the share of the disk that ours held on average, between its marks. The references have just that much, so
    that policies are compared and not marks; `WHOLE` is LRU with all of the disk.
    """

    trace: str
    seed: int | None
    size: float
    requested: int
    held: float
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
        ours = replay(trace, capacity)
        fair = capacity * ours.held
        ratios = {OURS: ours.ratio} | {name: answer(trace, fair) for name, answer in REFERENCES.items()}
        ratios |= {WHOLE: REFERENCES["LRU"](trace, capacity), OPTIMUM: belady_size(trace, fair)}
        yield Row(trace.name, seed, size, trace.bytes, ours.held, ratios)


def broken_claims(rows: Iterable[Row]) -> list[str]:
    """Return what does not hold of what is claimed for the traces that are shipped."""
    rows = list(rows)
    found = []
    mean = sum(row.over_lru for row in rows) / len(rows) if rows else 0.0
    if rows and mean <= 0.0:
        found.append(f"on average {100 * mean:+.2f} points of LRU")
    for row in rows:
        name = f"{row.trace}, seed {row.seed}, {row.size:.0%}"
        if row.over_lru < -MOST_BELOW_LRU:
            found.append(f"{name}: {100 * row.over_lru:+.2f} points of LRU")
        if row.of_best < LEAST_OF_BEST:
            found.append(f"{name}: {row.of_best:.1%} of the best")
    return found
