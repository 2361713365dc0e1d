"""Ratios, verdicts, and what stands in for a peer that is not installed."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from rich.console import Console

from tests.benchmarks.prober import percentile
from tests.benchmarks.results import Result, Target, Verdict
from tests.benchmarks.scale import QUICK, Scale
from tests.benchmarks.table import document, table
from tests.benchmarks.turns import turns

_RECORDED = {"nginx": 60_000.0, "zot": 15_000.0}


def _result(target: Target | None, **medians: float) -> Result:
    return Result("work", "unit", target, values={server: [median] for server, median in medians.items()})


@pytest.mark.parametrize(
    ("target", "ours", "verdict"),
    [
        (Target("at most", 1.3, "nginx"), 13.0, "met"),
        (Target("at most", 1.3, "nginx"), 13.1, "missed"),
        (Target("at least", 2.0, "nginx"), 20.0, "met"),
        (Target("at least", 2.0, "nginx"), 19.9, "missed"),
        (Target("at most", 4.0), 4.0, "met"),
        (Target("below", 4.0), 4.0, "missed"),
        (Target("below", 4.0), 3.9, "met"),
        (Target("at most", 0), 0.0, "met"),
        (Target("at most", 0), 1.0, "missed"),
        (None, 1.0, ""),
    ],
)
def test_judges__bound_of_every_sense(target: Target | None, ours: float, verdict: Verdict) -> None:
    assert _result(target, layover=ours, nginx=10.0).verdict == verdict


def test_takes_medians__several_rounds() -> None:
    result = _result(Target("at most", 1.0, "nginx"))
    for ours, theirs in ((1, 5), (100, 4), (3, 6)):
        result.add("layover", ours)
        result.add("nginx", theirs)
    assert (result.median("layover"), result.median("nginx"), result.ratio) == (3, 5, 0.6)


def test_has_no_verdict__reference_not_measured() -> None:
    assert _result(Target("at most", 1.0, "nginx"), layover=1.0).verdict == "not measured"
    assert _result(Target("at most", 1.0), nginx=1.0).verdict == "not measured"


def test_misses__layover_failed() -> None:
    result = _result(Target("at most", 4.0), layover=1.0)
    result.fail("layover", "a blob was wrong")
    assert result.verdict == "missed"


def test_stands_in_by_the_ratio_to_nginx__peer_not_measured() -> None:
    result = _result(Target("at least", 1.5, "zot"), layover=12_000, nginx=30_000)
    result.recorded = _RECORDED
    assert result.reference == 7_500
    assert result.ratio == 1.6
    assert result.verdict == "met"


def test_does_not_stand_in__peer_measured() -> None:
    result = _result(Target("at least", 1.5, "zot"), layover=12_000, nginx=30_000, zot=10_000)
    result.recorded = _RECORDED
    assert result.stand_in("zot") is None
    assert result.verdict == "missed"


def test_compares_with_nginx__absolute_target() -> None:
    assert _result(Target("at most", 4.0), layover=3.0, nginx=2.0).ratio == 1.5


def test_shows_what_was_not_measured__table_and_json() -> None:
    result = _result(Target("at least", 1.5, "zot"), layover=12_000, nginx=30_000)
    result.recorded = _RECORDED | {"distribution": 9_000.0}
    result.fail("distribution", "it fell over")
    apart = Result("other work", "s", recorded={"zot": 32.0})
    output = StringIO()
    Console(file=output, width=160).print(table([result, apart]))
    for cell in ("12,000", "30,000", "≈7,500", "failed", "[32]", "≥ 1.5 x zot", "met"):
        assert cell in output.getvalue()
    told = json.loads(json.dumps(document([result], QUICK)))["rows"][0]
    assert (told["verdict"], told["ratio"], told["medians"]["nginx"]) == ("met", 1.6, 30_000)


def test_turns_the_order_round__every_other_round() -> None:
    assert list(turns("ab", 3)) == list("abbaab")
    assert list(turns("abc", 3, once={"c"})) == list("abcbaab")


def test_finds_percentiles__any_order() -> None:
    values = [float(value) for value in reversed(range(100))]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile([7.0], 0.99)) == (50, 99, 7)


def test_keeps_a_mebibyte__small_scale() -> None:
    assert Scale(share=1 / 8).layers(200, 6) == [25 * 2**20, 2**20]
