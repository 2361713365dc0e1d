"""Segments are a set of byte offsets, whatever order and overlap they come in."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.store.segments import Segments

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


def model(spans: list[tuple[int, int]]) -> set[int]:
    return {offset for start, end in spans for offset in range(start, end)}


@settings(deadline=None)
@given(SPANS)
def test_behaves__as_a_set_of_offsets(spans: list[tuple[int, int]]) -> None:
    segments, held = Segments(spans), model(spans)
    assert segments.total == len(held)
    assert model(segments.spans) == held
    for offset in range(62):
        end = offset
        while end in held:
            end += 1
        assert segments.end_from(offset) == end


@settings(deadline=None)
@given(SPANS)
def test_keeps_spans__sorted_apart_and_not_empty(spans: list[tuple[int, int]]) -> None:
    found = Segments(spans).spans
    assert all(start < end for start, end in found)
    assert all(one[1] < two[0] for one, two in pairwise(found))


@settings(deadline=None)
@given(SPANS, SPANS)
def test_is_the_same__in_any_order_and_from_its_own_spans(
    one: list[tuple[int, int]], two: list[tuple[int, int]]
) -> None:
    together = Segments(one + two).spans
    assert Segments(two + one).spans == together
    assert Segments(together).spans == together
