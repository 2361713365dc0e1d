"""How many connections are used: as many as pay, learnt from what a line of some kind would bring."""

from __future__ import annotations

import math

import pytest

from mirror.source import Pace

MIB = 2**20
_STEP = 0.01


class Line:
    """A fill on a line that gives each connection so much, and all of them together no more than so much."""

    def __init__(self, pace: Pace, each: float, total: float) -> None:
        self.now = 100.0
        self.lanes = 0
        self.each = each
        self.total = total
        self._pace = pace
        pace.joined()

    def run(self, seconds: float) -> int:
        """Fetch for some time, and return how many connections are used at its end."""
        until = self.now + seconds
        while self.now < until:
            while not self.lanes or self._pace.may_add(self.lanes):
                self.lanes += 1
                self._pace.opened()
                self._pace.began(self.now)
            while self.lanes > self._pace.share:
                self.lanes -= 1
                self._pace.ended(self.now, had_begun=True)
            self.now += _STEP
            for _ in range(self.lanes):
                self._pace.brought(int(min(self.each, self.total / self.lanes) * _STEP), self.now)
        return self.lanes

    def end(self) -> None:
        for _ in range(self.lanes):
            self._pace.ended(self.now, had_begun=True)
        self.lanes = 0
        self._pace.left()


def paced(most: int = 24, enough: float = math.inf) -> Pace:
    return Pace(most, enough, lambda: 1000)


class TestPace:
    def test_begins_with_one(self) -> None:
        assert paced().share == 1

    def test_adds__while_it_pays(self) -> None:
        assert 10 <= Line(paced(), 10 * MIB, 100 * MIB).run(2) <= 18

    @pytest.mark.parametrize("each", [70 * MIB, 500 * MIB])
    def test_leaves_it_at_one__that_is_quick(self, each: float) -> None:
        assert Line(paced(), each, 1000 * MIB).run(30) == 1

    @pytest.mark.parametrize(("seconds", "is_one"), [(0.001, True), (0.04, False)])
    def test_leaves_it_at_one_sooner__where_answers_come_at_once(self, seconds: float, is_one: bool) -> None:
        pace = paced()
        pace.answered(seconds)
        assert (Line(pace, 20 * MIB, 1000 * MIB).run(5) == 1) is is_one

    def test_goes_back_to_one__where_others_bring_nothing_more(self) -> None:
        line = Line(paced(), 30 * MIB, 30 * MIB)
        used = [line.run(0.05) for _ in range(300)]
        assert max(used) > 1
        assert used.count(1) > 0.9 * len(used)

    def test_adds_none__where_no_more_than_that_may_come(self) -> None:
        assert Line(paced(enough=8 * MIB), 10 * MIB, 10 * MIB).run(5) == 1

    def test_remembers__for_the_next_blob(self) -> None:
        pace = paced()
        first = Line(pace, 10 * MIB, 100 * MIB)
        used = first.run(2)
        first.end()
        assert Line(pace, 10 * MIB, 100 * MIB).run(_STEP) == used

    def test_is_shared__between_fills(self) -> None:
        pace = paced()
        line = Line(pace, 10 * MIB, 100 * MIB)
        line.run(2)
        alone = pace.share
        pace.joined()
        assert pace.share == math.ceil(alone / 2)
        for _ in range(100):
            pace.joined()
        assert pace.share == 1

    def test_is_halved__by_a_refusal__and_not_tried_again_soon(self) -> None:
        pace = paced()
        line = Line(pace, 10 * MIB, 1000 * MIB)
        before = line.run(2)
        pace.refused(line.now)
        assert line.run(5) == before // 2
        assert line.run(20) == before

    def test_gives_up__what_became_quick(self) -> None:
        line = Line(paced(), 10 * MIB, 100 * MIB)
        line.run(2)
        line.each, line.total = 200 * MIB, 10_000 * MIB
        assert line.run(3) == 1

    def test_keeps_some_for_the_next_fill(self) -> None:
        spare = 24
        pace = Pace(24, math.inf, lambda: spare)
        line = Line(pace, 10 * MIB, 1000 * MIB)
        assert line.run(2) == 18
        spare = 6
        assert not pace.may_add(0)
        assert pace.may_hurry
        spare = 0
        assert not pace.may_hurry

    @pytest.mark.parametrize("most", [1, 2, 3])
    def test_is_never_more_than_allowed(self, most: int) -> None:
        assert Line(paced(most), MIB, 1000 * MIB).run(5) <= most
