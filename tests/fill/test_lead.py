"""How far a fill gets ahead of the siblings that follow it, and for how long it waits for them."""

from __future__ import annotations

from mirror.fill.lead import Lead, portion, window

MIB = 2**20
SIZE = 160 * MIB
AHEAD = window(SIZE)


def test_window__is_a_share__but_enough_for_several_connections() -> None:
    assert window(SIZE) == 20 * MIB
    assert window(MIB) == 2 * MIB


def test_portion__is_a_small_part_of_the_window() -> None:
    assert portion(SIZE) == 2.5 * MIB
    assert portion(0) == MIB


def test_reach__is_ahead_of_what_is_missing__where_nobody_follows() -> None:
    lead = Lead()
    assert lead.reach(SIZE, 0, 5.0) == AHEAD
    assert lead.reach(SIZE, 50 * MIB, 5.3) == 50 * MIB + AHEAD


def test_reach__leaves_a_moment_to_those_who_may_follow() -> None:
    lead = Lead()
    lead.reach(SIZE, 0, 5.0)
    assert lead.reach(SIZE, AHEAD, 5.1) == AHEAD
    assert lead.reach(SIZE, AHEAD, 5.3) == 2 * AHEAD


def test_reach__is_ahead_of_the_furthest_who_follows() -> None:
    lead = Lead()
    lead.copied(30 * MIB, 1.0)
    lead.copied(10 * MIB, 1.1)
    assert lead.reach(SIZE, 40 * MIB, 1.2) == 30 * MIB + AHEAD
    assert lead.reach(SIZE, 60 * MIB, 1.3) == 30 * MIB + AHEAD


def test_reach__is_as_if_nobody_followed__once_they_stand_still() -> None:
    lead = Lead()
    lead.copied(0, 10.0)
    assert lead.reach(SIZE, AHEAD, 11.9) == AHEAD
    assert lead.reach(SIZE, AHEAD, 12.1) == 2 * AHEAD
    lead.copied(MIB, 12.2)
    assert lead.reach(SIZE, AHEAD, 12.3) == MIB + AHEAD


def test_reach__holds_a_fill_back__for_half_of_the_time_at_most() -> None:
    lead = Lead()
    there, held, steps = 0, 0, 1000
    for step in range(steps):
        now = step / 100
        lead.copied(step, now)  # it creeps
        if lead.reach(SIZE, there, now) <= there:
            held += 1
        else:
            there += AHEAD // 4
    assert steps * 0.45 < held < steps * 0.55
