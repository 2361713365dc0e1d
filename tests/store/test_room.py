"""Room: promises and bytes together never pass the bound."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.config.units import Size
from mirror.store.room import Room

NOTHING = Size(0, is_share=False)
STEPS = st.lists(st.tuples(st.sampled_from(["claim", "spend", "unclaim", "free"]), st.integers(0, 600)), max_size=40)


def bounded(amount: int, used: int = 0) -> Room:
    room = Room(Path("/"), Size(amount, is_share=False), NOTHING, 0)
    room.count(used)
    return room


@settings(deadline=None)
@given(STEPS, st.integers(0, 1000))
def test_never_promises_more__than_the_size_leaves(steps: list[tuple[str, int]], used: int) -> None:
    room, promised = bounded(1000, used), 0
    for step, amount in steps:
        if step == "claim":
            fits = room.used + promised + amount <= 1000
            assert room.claim(amount) is fits
            promised += amount if fits else 0
        elif step == "free":
            room.free(min(amount, room.used))
        else:
            kept = max(0, promised - amount)
            getattr(room, step)(promised - kept)
            promised = kept
        assert room.used + promised <= max(1000, used)


def test_knows_its_capacity__as_bytes_and_as_a_share() -> None:
    assert bounded(1000).capacity == 1000
    whole = Room(Path("/"), Size(1.0, is_share=True), NOTHING, 0).capacity
    assert Room(Path("/"), Size(0.5, is_share=True), NOTHING, 0).capacity == whole // 2


def test_leaves_free__what_others_are_promised() -> None:
    room = Room(Path("/"), Size(2**62, is_share=False), Size(1.0, is_share=True), 0)
    assert not room.claim(1)
    assert Room(Path("/"), Size(2**62, is_share=False), NOTHING, 0).claim(1)


def test_promises_no_more__than_the_file_system_has() -> None:
    assert not Room(Path("/"), Size(2**62, is_share=False), NOTHING, 0).claim(2**61)


async def test_waits_for_the_count__where_it_decides() -> None:
    room = Room(Path("/"), Size(1000, is_share=False), NOTHING, 0)
    assert not room.claim(600)
    waiting = asyncio.create_task(room.ready(600))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    room.count(300)
    await waiting
    assert room.used == 300
    assert room.claim(600)
    assert not room.claim(600)
    await room.ready(600)


async def test_waits_for_no_count__where_the_file_system_has_room_for_all() -> None:
    room = Room(Path("/"), Size(2**62, is_share=False), NOTHING, 0)
    await room.ready(1)
    assert room.claim(1)
