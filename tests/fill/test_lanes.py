"""Which connection is replaced: never one that brings what others bring, nor one that waits for something else."""

from __future__ import annotations

import pytest

from mirror.fill.lanes import View, laggard

MIB = 2**20
QUICK = View(10 * MIB, 0.01, MIB)


@pytest.mark.parametrize(
    "slow",
    [
        View(None, 2.0, MIB),
        View(5 * MIB, 2.5, MIB),
        View(MIB, 0.1, 100 * MIB),
        View(0.0, 0.1, 1000),
    ],
    ids=["silent from the start", "silent", "crawling", "next to nothing"],
)
def test_laggard__is_the_slow_one(slow: View) -> None:
    assert laggard({"a": QUICK, "b": slow, "c": QUICK}, 10 * MIB) == "b"


@pytest.mark.parametrize(
    "other",
    [
        View(None, 1.9, MIB),
        View(2 * MIB, 0.1, 100 * MIB),
        View(MIB, 0.0, 100 * MIB),
        View(MIB, 0.1, MIB),
        View(None, 0.0, 100 * MIB),
    ],
    ids=["silent for a moment", "slower", "waits for the disk", "soon done", "new"],
)
def test_laggard__is_none(other: View) -> None:
    assert laggard({"a": QUICK, "b": other, "c": QUICK}, 10 * MIB) is None


def test_laggard__is_none_of_them__where_all_are_silent() -> None:
    assert laggard({"a": View(0.0, 3.0, MIB), "b": View(0.0, 3.0, MIB)}, 0.0) is None


def test_laggard__is_the_last__where_those_before_it_were_quick() -> None:
    assert laggard({"a": View(MIB, 0.1, 100 * MIB)}, 10 * MIB) == "a"
    assert laggard({"a": View(MIB, 0.1, 100 * MIB)}, 0.0) is None
