"""Turns: never more at a time than are allowed, small requests first, and none is lost."""

from __future__ import annotations

import asyncio
import random

import pytest

from mirror.source.upstream.slots import Slot, Slots


async def settled() -> None:
    """Let everything go on that can."""
    for _ in range(10):
        await asyncio.sleep(0)


class TestSlots:
    @pytest.mark.parametrize(("most", "transfers"), [(2, 1), (3, 2), (4, 3), (8, 6), (32, 24)])
    async def test_keep_some__from_transfers(self, most: int, transfers: int) -> None:
        slots = Slots(most)
        taken = [asyncio.create_task(slots.take(is_transfer=True)) for _ in range(most)]
        await settled()
        assert sum(task.done() for task in taken) == transfers
        small = [asyncio.create_task(slots.take(is_transfer=False)) for _ in range(most)]
        await settled()
        assert sum(task.done() for task in small) == most - transfers
        for task in taken + small:
            task.cancel()

    async def test_let_one_small_request_pass__beside_the_only_transfer(self) -> None:
        slots = Slots(1)
        await slots.take(is_transfer=True)
        small = await slots.take(is_transfer=False)
        waiting = asyncio.create_task(slots.take(is_transfer=False))
        await settled()
        assert not waiting.done()
        small.release()
        await waiting

    async def test_are_given__to_small_requests_first(self) -> None:
        slots = Slots(2)
        held = [await slots.take(is_transfer=False) for _ in range(2)]
        transfer = asyncio.create_task(slots.take(is_transfer=True))
        small = asyncio.create_task(slots.take(is_transfer=False))
        await settled()
        held[0].release()
        await settled()
        assert (small.done(), transfer.done()) == (True, False)
        held[1].release()
        await transfer

    async def test_are_released_once(self) -> None:
        slots = Slots(1)
        slot = await slots.take(is_transfer=True)
        waiting = [asyncio.create_task(slots.take(is_transfer=True)) for _ in range(2)]
        await settled()
        slot.release()
        slot.release()
        await settled()
        assert [task.done() for task in waiting] == [True, False]
        waiting[1].cancel()

    async def test_are_not_lost__by_those_who_leave(self) -> None:
        slots = Slots(1)
        slot = await slots.take(is_transfer=True)
        leaving, staying = (asyncio.create_task(slots.take(is_transfer=True)) for _ in range(2))
        await settled()
        slot.release()
        leaving.cancel()  # just as its turn comes
        await asyncio.wait_for(staying, 5)

    async def test_never_exceed_the_most__whatever_happens(self) -> None:
        chance = random.Random(1)
        slots, most = Slots(5), 0
        held: list[Slot] = []
        waiting: list[asyncio.Task[Slot]] = []
        for _ in range(3000):
            what = chance.random()
            if what < 0.5:
                waiting.append(asyncio.create_task(slots.take(is_transfer=chance.random() < 0.5)))
            elif what < 0.8 and held:
                held.pop(chance.randrange(len(held))).release()
            elif waiting:
                waiting.pop(chance.randrange(len(waiting))).cancel()
            await settled()
            held += [task.result() for task in waiting if task.done()]
            waiting = [task for task in waiting if not task.done()]
            most = max(most, len(held))
        assert most == 5
        for task in waiting:
            task.cancel()
        await settled()
        for slot in held:
            slot.release()
        assert slots.is_idle
