"""How far a replica gets ahead of the siblings that follow it, and for how long it waits for them."""

from __future__ import annotations

import pytest

from mirror.fill.lead import Bound, Lead, Leads, portion, window
from mirror.oci.digest import Digest

MIB = 2**20
SIZE = 160 * MIB
AHEAD = window(SIZE)
A, B, C = (Digest.of(name) for name in (b"a", b"b", b"c"))


@pytest.fixture
def leads() -> Leads:
    """Return those of a replica."""
    return Leads()


def leading(leads: Leads, digest: Digest, size: int | None, now: float, copied: int | None = None) -> Lead:
    """Return the lead of a fill that began; `copied` is what a sibling has by then."""
    lead = leads.enter(digest, size, now)
    lead.begin(now)
    if copied is not None:
        leads.copied(lead, copied, now)
    return lead


def test_window__is_a_share__but_enough_for_several_connections() -> None:
    assert window(SIZE) == 20 * MIB
    assert window(MIB) == 2 * MIB


def test_portion__is_a_small_part_of_the_window() -> None:
    assert portion(SIZE) == 2.5 * MIB
    assert portion(0) == MIB


class TestBound:
    """How far one fill may ask on."""

    def test_leaves_a_moment_to_those_who_may_follow__and_is_none_after_it(self, leads: Leads) -> None:
        lead = leading(leads, A, SIZE, 5.0)
        assert leads.bound(lead, SIZE, 0, 5.0) == Bound(AHEAD, AHEAD)
        assert leads.bound(lead, SIZE, AHEAD, 5.9) == Bound(AHEAD, AHEAD)
        assert leads.bound(lead, SIZE, AHEAD, 6.1) is None

    def test_waits_once__for_all_that_are_asked_for_at_about_the_same_time(self, leads: Leads) -> None:
        leading(leads, A, SIZE, 5.0)
        assert leads.bound(leading(leads, B, SIZE, 6.1), SIZE, 0, 6.1) is None

    def test_waits_anew__when_nothing_was_led_with_for_a_while(self, leads: Leads) -> None:
        leading(leads, A, SIZE, 5.0).end(SIZE)
        assert leads.bound(leading(leads, B, SIZE, 9.0), SIZE, AHEAD, 9.1) == Bound(AHEAD, AHEAD)

    def test_waits_half_as_long__after_it_waited_in_vain(self, leads: Leads) -> None:
        def moment(now: float) -> float:
            """Return for how long those are waited for who may be about to come, and have a fill end after it."""
            lead, step = leading(leads, A, SIZE, now), 0
            while leads.bound(lead, SIZE, AHEAD, now + step / 100) is not None:
                step += 1
            lead.end(SIZE)
            return step / 100

        assert [moment(now) for now in (10.0, 20.0, 30.0, 40.0, 50.0, 60.0)] == [1.0, 0.5, 0.25, 0.13, 0.1, 0.1]
        leads.copied(leading(leads, B, SIZE, 70.0), 0, 70.0)
        leads.leave(leads._leads[-1])
        assert moment(80.0) == 1.0

    def test_waits_as_long__where_it_did_not_wait(self, leads: Leads) -> None:
        leading(leads, A, MIB, 5.0).end(MIB)
        assert leads.bound(leading(leads, B, SIZE, 10.0), SIZE, AHEAD, 10.9) == Bound(AHEAD, AHEAD)

    def test_is_ahead_of_the_furthest_who_follows(self, leads: Leads) -> None:
        lead = leading(leads, A, SIZE, 1.0, 30 * MIB)
        leads.copied(lead, 10 * MIB, 1.1)
        assert leads.bound(lead, SIZE, 40 * MIB, 1.2) == Bound(30 * MIB + AHEAD, AHEAD)
        assert leads.bound(lead, SIZE, 60 * MIB, 1.3) == Bound(30 * MIB + AHEAD, AHEAD)

    def test_is_ahead_of_what_is_missing__once_they_stand_still(self, leads: Leads) -> None:
        lead, other = leading(leads, A, SIZE, 10.0, 0), leading(leads, B, SIZE, 10.0)
        assert leads.bound(lead, SIZE, AHEAD, 11.9) == Bound(AHEAD, AHEAD)
        leads.copied(other, MIB, 12.0)
        assert leads.bound(lead, SIZE, AHEAD, 12.1) == Bound(2 * AHEAD, AHEAD)
        leads.copied(lead, MIB, 12.2)
        assert leads.bound(lead, SIZE, AHEAD, 12.3) == Bound(MIB + AHEAD, AHEAD)

    def test_is_ahead_of_what_is_missing__where_others_are_followed(self, leads: Leads) -> None:
        lead = leading(leads, A, SIZE, 10.0)
        leading(leads, B, SIZE, 10.0, 0)
        assert leads.bound(lead, SIZE, AHEAD, 10.9) == Bound(AHEAD, AHEAD)
        assert leads.bound(lead, SIZE, AHEAD, 11.1) == Bound(2 * AHEAD, AHEAD)

    def test_holds_a_fill_back__for_half_of_the_time_at_most__but_for_a_second(self, leads: Leads) -> None:
        lead = leading(leads, A, SIZE, 0.0)
        there, held, steps = 0, 0, 2000
        for step in range(steps):
            now = step / 100
            leads.copied(lead, step, now)  # it creeps
            bound = leads.bound(lead, SIZE, there, now)
            assert bound is not None
            if bound.reach <= there:
                held += 1
            else:
                there += AHEAD // 4
        assert steps * 0.45 + 100 < held < steps * 0.55 + 100


class TestIsFarAhead:
    """Whether one more fill is better led by somebody else."""

    def test_not__with_the_first(self, leads: Leads) -> None:
        assert not leads.is_far_ahead(leads.enter(A, SIZE, 1.0), 1.0)

    def test_while_siblings_lack_too_much(self, leads: Leads) -> None:
        first = leading(leads, A, 3 * MIB, 1.0)
        small, more = leads.enter(B, MIB, 1.0), leads.enter(C, 3 * MIB, 1.0)
        assert not leads.is_far_ahead(small, 1.1)
        first.end(3 * MIB)
        assert leads.is_far_ahead(more, 1.1)
        leads.copied(first, 2 * MIB, 1.2)
        assert not leads.is_far_ahead(more, 1.3)

    def test_until_siblings_have_copies(self, leads: Leads) -> None:
        first = leading(leads, A, 8 * MIB, 1.0)
        more = leads.enter(B, 8 * MIB, 1.0)
        first.end(8 * MIB)
        assert leads.is_far_ahead(more, 1.1)
        leads.found([A], 1.2)
        assert not leads.is_far_ahead(more, 1.3)

    def test_not_for_the_sake_of_what_nobody_comes_for(self, leads: Leads) -> None:
        leading(leads, A, 8 * MIB, 1.0).end(8 * MIB)
        more = leads.enter(B, 8 * MIB, 1.0)
        assert leads.is_far_ahead(more, 1.9)
        assert not leads.is_far_ahead(more, 2.1)

    def test_not__if_it_is_a_small_share_of_all_that_is_wanted(self, leads: Leads) -> None:
        for size in (60, 40):
            leading(leads, Digest.of(bytes([size])), size * MIB, 1.0)
        assert not leads.is_far_ahead(leads.enter(C, 25 * MIB, 1.0), 1.1)

    def test_not__with_what_left(self, leads: Leads) -> None:
        leads.leave(leading(leads, A, 8 * MIB, 1.0))
        assert not leads.is_far_ahead(leads.enter(B, 8 * MIB, 1.0), 1.1)

    def test_reckons_with_something__where_the_size_is_unknown(self, leads: Leads) -> None:
        for digest in (A, B):
            leading(leads, digest, None, 1.0)
        assert leads.is_far_ahead(leads.enter(C, None, 1.0), 1.1)


def test_unsure__of_what_ended_and_is_not_known_to_be_copied__now_and_then(leads: Leads) -> None:
    leading(leads, A, MIB, 1.0).end(MIB)
    copied = leading(leads, B, MIB, 1.0, MIB)
    copied.end(MIB)
    leading(leads, C, MIB, 1.0)
    assert leads.unsure(1.1, 0.05) == [A]
    assert leads.unsure(1.12, 0.05) == ()
    assert leads.unsure(1.2, 0.05) == [A]
