"""What is asked for next: every byte once, readers first, and nobody starves."""

from __future__ import annotations

import random

import pytest

from mirror.fill.schedule import FIRST, Schedule, Span, first_span, span_length

MIB = 2**20


def taken(schedule: Schedule, length: int, *waiting: int) -> Span:
    span = schedule.take(length, waiting)
    assert span is not None
    return span


class TestSchedule:
    def test_goes_in_order__while_nobody_waits(self) -> None:
        schedule = Schedule(25, [])
        assert [taken(schedule, 10) for _ in range(3)] == [(0, 10), (10, 20), (20, 25)]
        assert schedule.take(10, []) is None

    def test_asks_for_what_is_missing_alone(self) -> None:
        schedule = Schedule(100, [(0, 5), (20, 30), (95, 100)])
        assert schedule.missing == 80
        assert [taken(schedule, 50) for _ in range(2)] == [(5, 20), (30, 80)]

    def test_begins_where_a_reader_waits(self) -> None:
        schedule = Schedule(100, [])
        assert taken(schedule, 10, 55) == (55, 65)
        assert [taken(schedule, 50), taken(schedule, 50), taken(schedule, 50)] == [(0, 50), (50, 55), (65, 100)]

    def test_goes_on__for_a_reader_whose_bytes_are_on_their_way(self) -> None:
        schedule = Schedule(100, [])
        taken(schedule, 10, 50)
        assert taken(schedule, 10, 53) == (60, 70)

    def test_serves_whoever_has_least_ahead(self) -> None:
        schedule = Schedule(1000, [])
        spans = [taken(schedule, 10, 0, 500) for _ in range(6)]
        assert sorted(spans) == [(0, 10), (10, 20), (20, 30), (500, 510), (510, 520), (520, 530)]

    def test_goes_in_order__where_all_that_a_reader_waits_for_is_on_its_way(self) -> None:
        schedule = Schedule(100, [])
        taken(schedule, 50, 50)
        assert taken(schedule, 10, 99) == (0, 10)

    @pytest.mark.parametrize("waiting", [(), (4,), (5,)], ids=["nobody", "has it", "waits"])
    def test_goes_no_further__than_its_reach(self, waiting: tuple[int, ...]) -> None:
        schedule = Schedule(100, [(0, 5)])
        assert schedule.take(10, waiting, 15) == (5, 15)
        assert schedule.take(10, waiting, 15) is None
        assert schedule.take(10, waiting, 16) == (15, 25)

    def test_goes_further_than_its_reach__for_a_reader_further_on(self) -> None:
        schedule = Schedule(100, [])
        assert schedule.take(10, [0, 50], 0) == (50, 60)
        assert schedule.take(10, [0, 50], 0) == (60, 70)
        assert schedule.take(10, [0], 0) is None

    def test_is_urgent__only_where_nobody_was_asked(self) -> None:
        schedule = Schedule(100, [(0, 20)])
        assert schedule.is_urgent([50])
        taken(schedule, 10, 50)
        assert not schedule.is_urgent([50, 55, 59])
        assert schedule.is_urgent([60])
        assert not schedule.is_urgent([10])
        assert not schedule.is_urgent([])

    @pytest.mark.parametrize("seed", range(20))
    def test_asks_for_every_byte_once__whatever_is_given_back(self, seed: int) -> None:
        chance = random.Random(seed)
        size = chance.randrange(1, 5000)
        there, end = [], 0
        while (start := end + chance.randrange(1, 400)) < size:
            end = min(size, start + chance.randrange(1, 400))
            there.append((start, end))
        counts = [0] * size
        for start, stop in there:
            counts[start:stop] = [1] * (stop - start)
        schedule = Schedule(size, there)
        out: list[Span] = []
        while schedule.missing or out:
            waiting = [chance.randrange(size) for _ in range(chance.randrange(3))]
            span = schedule.take(chance.randrange(1, 300), waiting)
            if span is not None:
                out.append(span)
            if span is None or chance.random() < 0.5:
                start, stop = out.pop(chance.randrange(len(out)))
                reached = chance.randint(start, stop)
                for offset in range(start, reached):
                    counts[offset] += 1
                schedule.give_back(Span(reached, stop))
        assert counts == [1] * size


class TestSpanLength:
    def test_is_modest__of_a_connection_that_nobody_knows(self) -> None:
        assert span_length(1000 * MIB, 1, 0) == FIRST

    def test_grows__with_what_a_connection_has_brought(self) -> None:
        rate = 500 * MIB
        assert span_length(1000 * MIB, 1, rate, FIRST) == 4 * FIRST
        assert span_length(1000 * MIB, 1, rate, 5 * FIRST) == 64 * MIB

    def test_is_about_a_second_s(self) -> None:
        assert span_length(1000 * MIB, 4, 6 * MIB, 100 * MIB) == 6 * MIB
        assert span_length(1000 * MIB, 4, 1000, 100 * MIB) == MIB

    def test_shrinks_towards_the_end__so_that_several_end_together(self) -> None:
        assert span_length(80 * MIB, 10, 10 * MIB, 100 * MIB) == 4 * MIB
        assert span_length(2 * MIB, 10, 10 * MIB, 100 * MIB) == MIB
        assert span_length(240 * MIB, 10, 10 * MIB, 100 * MIB, ahead=30 * MIB) == 3 * MIB
        assert span_length(240 * MIB, 1, 10 * MIB, 100 * MIB, ahead=30 * MIB) == 30 * MIB // 4


class TestFirstSpan:
    def test_is_closed__of_a_blob_of_unknown_size(self) -> None:
        assert first_span(None, [], 1, 0) == (0, FIRST)
        assert first_span(None, [(0, 10)], 1, 0) == (10, 10 + FIRST)

    @pytest.mark.parametrize(("size", "there"), [(0, []), (FIRST, []), (10 * FIRST, [(0, 9 * FIRST)])])
    def test_is_none__of_little(self, size: int, there: list[tuple[int, int]]) -> None:
        assert first_span(size, there, 8, MIB) is None

    def test_ends__where_what_is_there_begins(self) -> None:
        assert first_span(1000, [(0, 10), (20, 1000)], 1, 0) == (10, 20)

    def test_is_no_more_than_may_be_asked_for_at_a_time(self) -> None:
        assert first_span(4 * MIB, [], 1, 0, 2 * MIB) == (0, MIB)
        assert first_span(2 * MIB, [], 1, 0, 2 * MIB) is None

    def test_leaves_some__for_other_connections(self) -> None:
        assert first_span(32 * MIB, [], 4, 10 * MIB) == (0, 4 * MIB)
