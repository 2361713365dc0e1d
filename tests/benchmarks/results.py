"""What a measurement says: values, ratios, and whether a target is met. No I/O."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["met", "missed", "not measured", ""]

OURS = "layover"
YARDSTICK = "nginx"


@dataclass(frozen=True)
class Target:
    """A bound on our median: `factor` times the median of `against`, or `factor` itself, in the result's unit."""

    sense: Literal["at most", "at least", "below"]
    factor: float
    against: str = ""

    def __str__(self) -> str:
        sign = {"at most": "≤", "at least": "≥", "below": "<"}[self.sense]
        return f"{sign} {self.factor:g} x {self.against}" if self.against else f"{sign} {self.factor:g}"

    def met_by(self, value: float, reference: float) -> bool:
        """Tell whether a value keeps the bound; `reference` is the median of `against`, or 1."""
        bound = self.factor * reference
        if self.sense == "at least":
            return value >= bound
        return value < bound if self.sense == "below" else value <= bound


@dataclass
class Result:
    """One line of the table: every value of each server, in `unit`.

    `recorded` holds what was measured of peers before, beside nginx: it stands in for those that are missing now.
    """

    name: str
    unit: str
    target: Target | None = None
    recorded: Mapping[str, float] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, server: str, value: float) -> None:
        """Take in one value."""
        self.values.setdefault(server, []).append(value)

    def fail(self, server: str, why: str) -> None:
        """Take in that a server did not do the work."""
        self.failures[server] = why

    def median(self, server: str) -> float | None:
        """Return the middle value of a server, or None when it was not measured."""
        values = self.values.get(server)
        return statistics.median(values) if values else None

    def stand_in(self, server: str) -> float | None:
        """Return what a server that was not measured would come to: its recorded ratio to nginx, times nginx now."""
        yardstick, then, now = self.recorded.get(server), self.recorded.get(YARDSTICK), self.median(YARDSTICK)
        if self.values.get(server) or not yardstick or not then or now is None:
            return None
        return yardstick / then * now

    @property
    def reference(self) -> float | None:
        """Return what the target is relative to: a median of this run or its stand-in; None for neither."""
        if self.target is None or not self.target.against:
            return None
        measured = self.median(self.target.against)
        return measured if measured is not None else self.stand_in(self.target.against)

    @property
    def ratio(self) -> float | None:
        """Return our median by the target's reference, or by nginx's where the target is an absolute one."""
        ours = self.median(OURS)
        theirs = self.reference if self.target and self.target.against else self.median(YARDSTICK)
        return ours / theirs if ours is not None and theirs else None

    @property
    def verdict(self) -> Verdict:
        """Return whether the target is met; nothing where there is none."""
        if self.target is None:
            return ""
        if OURS in self.failures:
            return "missed"
        ours, reference = self.median(OURS), self.reference if self.target.against else 1.0
        if ours is None or reference is None:
            return "not measured"
        return "met" if self.target.met_by(ours, reference) else "missed"
