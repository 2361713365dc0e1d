"""What may go and in which order, decided without a disk."""

from __future__ import annotations

import hashlib
import random
import resource
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.eviction.plan import Candidate, Plan
from mirror.oci.digest import Digest

NOW = 1_800_000_000.0
MANY = 200_000


def digest(number: int, algorithm: str = "sha256") -> Digest:
    return Digest.of(str(number).encode(), algorithm)


def planned(*facts: tuple[int, float, float]) -> Plan:
    """Return a plan of contents of a size, idle for so many seconds, and so popular."""
    plan = Plan(NOW)
    for number, (size, idle, popularity) in enumerate(facts):
        plan.add(digest(number, "sha512" if number % 7 == 3 else "sha256"), size, NOW - idle, popularity)
    plan.settle()
    return plan


def coldest(plan: Plan, most: int = 3) -> list[Candidate]:
    return [each for some in plan.coldest(most) for each in some]


FACTS = st.lists(
    st.tuples(st.integers(1, 10_000), st.integers(0, 10_000_000).map(float), st.floats(0, 100)), max_size=120
)


@settings(deadline=None)
@given(FACTS)
def test_yields_all_but_the_most_used_fifth__lowest_score_first(facts: list[tuple[int, float, float]]) -> None:
    plan = planned(*facts)
    found = coldest(plan)
    assert [each.score for each in found] == sorted(each.score for each in found)
    gone = {each.digest for each in found}
    assert len(gone) == len(found)
    kept = [fact for number, fact in enumerate(facts) if {digest(number), digest(number, "sha512")}.isdisjoint(gone)]
    left = [
        fact for number, fact in enumerate(facts) if not {digest(number), digest(number, "sha512")}.isdisjoint(gone)
    ]
    total = sum(size for size, _, _ in facts)
    assert sum(size for size, _, _ in kept) * 5 <= total
    if kept and left:
        assert min(popularity for _, _, popularity in kept) >= max(popularity for _, _, popularity in left) - 1e-4
    if left:  # as many as fit: the next in line would not
        most_used = max(left, key=lambda fact: (round(fact[2], 4), -fact[1]))
        ties = [size for size, _, popularity in left if abs(popularity - most_used[2]) < 1e-3]
        assert (sum(size for size, _, _ in kept) + max(ties)) * 5 > total - 5


def test_tells_what_it_saw__of_each() -> None:
    plan = planned((4096, 10.0, 3.0), (8192, 99.0, 0.5))
    facts = {each.digest: each[1:2] + each[3:] for each in coldest(plan)}
    assert facts == {digest(0): (4096, 3.0, 10.0), digest(1): (8192, 0.5, 99.0)}


def test_yields_unused__popular_or_not() -> None:
    plan = planned((1, 100.0, 50.0), (1, 10.0, 0.0), (1, 101.0, 0.0), (1, 500.0, 0.0))
    found = [[each.digest for each in some] for some in plan.unused(99.0, 2)]
    assert [len(some) for some in found] == [2, 1]
    assert {each for some in found for each in some} == {digest(0), digest(2), digest(3, "sha512")}


def test_plans_for_many__in_little_memory_and_never_long_at_once() -> None:
    chance = random.Random(7)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.thread_time()
    plan = Plan(NOW)
    for number in range(MANY):
        name = hashlib.sha256(number.to_bytes(4, "big")).hexdigest()
        plan.add(Digest(f"sha256:{name}"), chance.randrange(4096, 2**24), NOW - chance.random() * 1e7, chance.random())
    plan.settle()
    batches = plan.coldest(256)
    found = [next(batches) for _ in range(20)]
    assert time.thread_time() - started < 20  # about one and a half on an idle machine
    assert sum(map(len, found)) == 20 * 256
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 300 * MANY
