"""Readers of one door that follow the same fill ask the hub as one."""

from __future__ import annotations

import asyncio

import pytest

from mirror.channel import Progress
from mirror.channel.shown import Shown
from mirror.oci.errors import ErrorCode, RegistryError


class _Desk:
    """Takes questions, and answers them when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self._answers: list[asyncio.Future[Progress]] = []

    async def ask(self, fill: int, offset: int) -> Progress:
        self.asked.append((fill, offset))
        self._answers.append(asyncio.get_running_loop().create_future())
        return await self._answers[-1]

    def answer(self, answer: Progress | RegistryError, which: int = -1) -> None:
        """Answer a question, by default the latest."""
        if isinstance(answer, Progress):
            self._answers[which].set_result(answer)
        else:
            self._answers[which].set_exception(answer)


@pytest.fixture
async def desk() -> _Desk:
    return _Desk()


@pytest.fixture
async def shown(desk: _Desk) -> Shown:
    return Shown(desk.ask)


async def _ask(shown: Shown, *offsets: int, fill: int = 1) -> list[asyncio.Task[Progress]]:
    tasks = [asyncio.create_task(shown.progress(fill, offset)) for offset in offsets]
    await _settle()
    return tasks


async def _settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_many_at_one_offset__one_question(desk: _Desk, shown: Shown) -> None:
    waiting = await _ask(shown, *[100] * 50)
    desk.answer(Progress(200, 1000))
    assert await asyncio.gather(*waiting) == [Progress(200, 1000)] * 50
    assert desk.asked == [(1, 100)]


async def test_behind_what_was_said__no_question(desk: _Desk, shown: Shown) -> None:
    for start, end in ((0, 100), (100, 200)):
        (first,) = await _ask(shown, start)
        desk.answer(Progress(end, 1000))
        await first
    assert [await shown.progress(1, offset) for offset in (0, 150, 199)] == [Progress(200, 1000)] * 3
    assert desk.asked == [(1, 0), (1, 100)]


async def test_elsewhere__is_asked(desk: _Desk, shown: Shown) -> None:
    (first,) = await _ask(shown, 500)
    desk.answer(Progress(600, 1000))
    await first
    await _ask(shown, 0, 499, 600)
    await _ask(shown, 550, fill=2)
    assert desk.asked == [(1, 500), (1, 0), (1, 499), (1, 600), (2, 550)]


async def test_who_asked_leaves__another_asks(desk: _Desk, shown: Shown) -> None:
    first, *others = await _ask(shown, 0, 0, 0)
    first.cancel()
    await _settle()
    assert desk.asked == [(1, 0), (1, 0)]
    desk.answer(Progress(10, 1000))
    assert await asyncio.gather(*others) == [Progress(10, 1000)] * 2


async def test_who_waits_leaves__the_others_are_answered(desk: _Desk, shown: Shown) -> None:
    *others, last = await _ask(shown, 0, 0, 0)
    last.cancel()
    await _settle()
    desk.answer(Progress(10, 1000))
    assert await asyncio.gather(*others) == [Progress(10, 1000)] * 2
    assert desk.asked == [(1, 0)]


async def test_a_fill_that_failed__all_are_told(desk: _Desk, shown: Shown) -> None:
    (first,) = await _ask(shown, 0)
    desk.answer(Progress(100, 1000))
    await first
    waiting = await _ask(shown, 100, 100, 100)
    desk.answer(RegistryError(ErrorCode.UNAVAILABLE, "it broke"))
    for each in waiting:
        with pytest.raises(RegistryError, match="it broke"):
            await each
    await _ask(shown, 0)
    assert desk.asked == [(1, 0), (1, 100), (1, 0)]


@pytest.mark.parametrize(
    "last",
    [
        Progress(1000, 1000, is_verified=True),
        Progress(100, is_forgotten=True),
        Progress(100, 1000, lost_room=True),
    ],
)
async def test_a_fill_that_ended__nothing_is_believed_any_more(desk: _Desk, shown: Shown, last: Progress) -> None:
    for start, answer in ((0, Progress(100, 1000)), (100, last)):
        (first,) = await _ask(shown, start)
        desk.answer(answer)
        assert await first == answer
    await _ask(shown, 50)
    assert desk.asked == [(1, 0), (1, 100), (1, 50)]


async def test_another_hub__nothing_is_believed_any_more(desk: _Desk, shown: Shown) -> None:
    (first,) = await _ask(shown, 0)
    desk.answer(Progress(100, 1000))
    await first
    shown.forget()
    await _ask(shown, 50)
    assert desk.asked == [(1, 0), (1, 50)]


async def test_very_many_fills__the_oldest_are_asked_of_again(desk: _Desk, shown: Shown) -> None:
    for fill in range(300):
        (first,) = await _ask(shown, 0, fill=fill)
        desk.answer(Progress(100, 1000))
        await first
    await shown.progress(299, 50)
    assert len(desk.asked) == 300
    await _ask(shown, 50, fill=0)
    assert desk.asked[-1] == (0, 50)
