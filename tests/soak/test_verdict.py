"""A verdict on evictions sees what is wrong, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.soak.churn import Pull
from tests.soak.scans import Scan
from tests.soak.verdict import Verdict, judge

LAST, SPARE, OWN = "sha256:last", "sha256:spare", "sha256:own"


def evicted(digest: str, at: float, keeper: str | None = None) -> dict[str, Any]:
    return {"digest": digest, "at": at, "keeper": keeper, "was_last_copy": keeper is None}


def scan(at: float, *stores: dict[str, int]) -> Scan:
    return Scan(at, at + 0.1, stores)


BEFORE = scan(10, {LAST: 50, SPARE: 40, OWN: 60}, {SPARE: 40})
AFTER = scan(11, {SPARE: 40, OWN: 60}, {SPARE: 40})


def wrong(trails: list[list[dict[str, Any]]], *scans: Scan, pulls: tuple[Pull, ...] = ()) -> bool:
    verdict = judge(trails, scans, pulls)
    assert verdict.judged == 1
    return bool(verdict.wrong)


def test_condemns__a_last_copy_that_went_beside_spares() -> None:
    assert wrong([[evicted(LAST, 10.5)], []], BEFORE, AFTER)


def test_acquits__where_no_more_than_the_protected_fifth_was_spare() -> None:
    before = scan(10, {LAST: 50, SPARE: 40, OWN: 110}, {SPARE: 40})
    assert not wrong([[evicted(LAST, 10.5)], []], before, AFTER)


@pytest.mark.parametrize("moment", [5.0, 10.4])
def test_acquits__where_the_spares_were_promised(moment: float) -> None:
    assert not wrong([[evicted(LAST, 10.5)], [evicted(SPARE, moment, "store 0")]], BEFORE, AFTER)


def test_acquits__where_the_spares_were_open() -> None:
    assert not wrong([[evicted(LAST, 10.5)], []], BEFORE, AFTER, pulls=(Pull(9.0, 0, SPARE),))
    assert wrong([[evicted(LAST, 10.5)], []], BEFORE, AFTER, pulls=(Pull(9.0, 1, SPARE),))


def test_judges_nothing__before_the_first_scan_or_after_the_last() -> None:
    trails = [[evicted(LAST, 9.0), evicted(OWN, 12.0)], []]
    assert judge(trails, [BEFORE, AFTER], ()) == Verdict(2, 2, 0, ())
