"""Whether last copies went last: the audit trails of evictions against what was seen in the stores. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tests.soak.churn import Pull
from tests.soak.scans import Scan

# The most-used fifth of a store's bytes is never let go for want of room.
_PROTECTED = 0.2
# So long a keeper keeps what it promised, and so long after a pull content may still be open.
_HELD_SECONDS = 60.0
_OPEN_SECONDS = 4.0


class Verdict(NamedTuple):
    """How many evictions there were, of last copies among them, how many of these were judged, and what is wrong."""

    evictions: int
    last_copies: int
    judged: int
    wrong: tuple[str, ...]


def judge(trails: Sequence[Sequence[Mapping[str, Any]]], scans: Sequence[Scan], pulls: Sequence[Pull]) -> Verdict:
    """Judge every eviction for want of room of a last copy, for each store its trail.

    It is wrong if just before and just after the store held more bytes that others held too than what may be protected,
    promised or open. A digest counts as held by another if it was in the scan before and in the one after.
    """
    wrong: list[str] = []
    judged = 0
    lasts = [(place, each) for place, trail in enumerate(trails) for each in trail if each["was_last_copy"]]
    promised = [each for trail in trails for each in trail if each["keeper"]]
    for place, each in lasts:
        around = _around(scans, each["at"])
        if around is None:
            continue
        judged += 1
        before, after = around
        own = before.stores[place].keys() & after.stores[place].keys()
        others = {
            digest
            for number in range(len(trails))
            if number != place
            for digest in before.stores[number].keys() & after.stores[number].keys()
        }
        kept = {every["digest"] for every in promised if each["at"] - _HELD_SECONDS - 1 <= every["at"] <= after.ended}
        opened = {
            pull.digest
            for pull in pulls
            if pull.replica == place and before.begun - _OPEN_SECONDS <= pull.at <= after.ended + _OPEN_SECONDS
        }
        spare = sum(before.stores[place][digest] for digest in (own & others) - kept - opened)
        if spare > _PROTECTED * sum(before.stores[place].values()):
            wrong.append(f"store {place} let the last copy of {each['digest']} go beside {spare} bytes of spares")
    return Verdict(sum(map(len, trails)), len(lasts), judged, tuple(wrong))


def _around(scans: Sequence[Scan], at: float) -> tuple[Scan, Scan] | None:
    """Return the last scan that ended before a moment and the first that began after it."""
    last = bisect_left(scans, at, key=lambda scan: scan.ended) - 1
    first = bisect_right(scans, at, key=lambda scan: scan.begun)
    return (scans[last], scans[first]) if last >= 0 and first < len(scans) else None
