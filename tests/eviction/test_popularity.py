"""How much content is in use, as it was seen."""

from __future__ import annotations

import resource

import pytest

from mirror.eviction.policy import score
from mirror.eviction.popularity import Popularity, once
from mirror.oci.digest import Digest

NOW = 1_800_000_000.0
HOUR = 3600.0


def digest(number: int) -> Digest:
    return Digest.of(str(number).encode())


def used(*moments: float) -> Popularity:
    """Return what is known of one digest that was used so many seconds ago each."""
    popularity = Popularity()
    for ago in moments:
        popularity.note(digest(0), NOW - ago)
    return popularity


def test_returns_nothing__for_what_was_never_used() -> None:
    assert used().of(digest(0), NOW) == 0.0
    assert used(HOUR).of(digest(1), NOW) == 0.0


def test_decays__while_nothing_is_used() -> None:
    popularity = used(30 * HOUR, 20 * HOUR, HOUR)
    seen = [popularity.of(digest(0), NOW + hours * HOUR) for hours in (0, 1, 24, 240)]
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < seen[0] / 50


def test_counts_a_burst_as_little_more_than_one_occasion__when_it_is_over() -> None:
    burst = used(*(24 * HOUR - second for second in range(100)))
    spread = used(28 * HOUR, 26 * HOUR, 24 * HOUR)
    assert burst.of(digest(0), NOW) < spread.of(digest(0), NOW)


def test_ranks_a_burst_first__while_it_lasts() -> None:
    burst = used(*(60.0 - second for second in range(30)))
    spread = used(*(hours * HOUR for hours in range(24, 0, -1)))
    assert burst.of(digest(0), NOW) > spread.of(digest(0), NOW)


def test_ranks_a_first_use_behind_a_second__of_the_same_age() -> None:
    assert used(HOUR).of(digest(0), NOW) < used(9 * HOUR, HOUR).of(digest(0), NOW)
    assert used(HOUR).of(digest(0), NOW) == pytest.approx(once(HOUR), rel=1e-5)


def test_counts_as_much__whether_uses_are_told_one_by_one_or_at_once() -> None:
    together, singly = Popularity(), Popularity()
    together.note(digest(0), NOW - 60, times=5)
    for _ in range(5):
        singly.note(digest(0), NOW - 60)
    assert together.of(digest(0), NOW) == pytest.approx(singly.of(digest(0), NOW), rel=1e-4)


def test_knows_all__of_200_000_digests() -> None:
    popularity = Popularity()
    for number in range(200_000):
        popularity.note(digest(number), NOW)
    lost = sum(popularity.of(digest(number), NOW) == 0.0 for number in range(0, 200_000, 10))
    assert lost < 0.1 * 20_000


def test_keeps_what_is_used_most__when_more_is_seen_than_it_remembers() -> None:
    popularity = Popularity()
    for hours in range(10, 0, -1):
        popularity.note(digest(-1), NOW - hours * HOUR)
    for number in range(400_000):
        popularity.note(digest(number), NOW)
    assert popularity.of(digest(-1), NOW) > 1.0


def test_knows_the_same__after_a_restart() -> None:
    popularity, restarted = used(5 * HOUR, HOUR), Popularity()
    restarted.load(popularity.dump())
    assert restarted.of(digest(0), NOW) == popularity.of(digest(0), NOW) > 0.0
    assert len(popularity.dump()) < 60 * 200_000


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-1], lambda data: b"", lambda data: data[:-1] + b"?"],
    ids=["short", "empty", "changed"],
)
def test_begins_empty__with_a_damaged_file(damage: object) -> None:
    assert callable(damage)
    restarted = Popularity()
    restarted.load(damage(used(HOUR).dump()))
    assert restarted.of(digest(0), NOW) == 0.0


def test_scores_by_the_byte__so_that_small_things_stay() -> None:
    assert score(2_000, 1.0, HOUR) > score(2**30, 1.0, HOUR)
    assert score(2**26, 1.0, HOUR) == pytest.approx(score(2**30, 1.0, HOUR), rel=0.01)


def test_scores_what_nobody_counted_by_its_last_use() -> None:
    assert score(2**20, 0.0, HOUR) > score(2**20, 0.0, 2 * HOUR) > 0.0


def test_stays_small__whatever_it_sees() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    popularity = Popularity()
    for number in range(50_000):
        popularity.note(digest(number), NOW)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024
