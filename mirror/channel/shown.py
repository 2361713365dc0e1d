"""What the hub has shown of fills, so that many readers of one process who follow the same ask as one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from mirror.channel.protocol import Progress
from mirror.oci.errors import RegistryError

_MOST_FILLS = 256


class _Stretch(NamedTuple):
    """What the hub said of a fill last: there is something to read from `start` up to the progress' end."""

    start: int
    progress: Progress


class _Question:
    """A question on its way to the hub, and what came of it: neither answer nor error if who asked it left."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.answer: Progress | None = None
        self.error: RegistryError | None = None


class Shown:
    """Answers from what the hub said before, and has those who want to know the same wait for one answer."""

    def __init__(self, ask: Callable[[int, int], Awaitable[Progress]]) -> None:
        """Ask the hub by `ask`, which is `Hub.progress`."""
        self._ask = ask
        self._questions: dict[tuple[int, int], _Question] = {}
        self._last: dict[int, _Stretch] = {}

    async def progress(self, fill: int, offset: int) -> Progress:
        """See `Hub.progress`."""
        while True:
            last = self._last.get(fill)
            if last is not None and last.start <= offset < last.progress.end:
                return last.progress
            question = self._questions.get((fill, offset))
            if question is None:
                return await self._asked(fill, offset)
            await question.over.wait()
            if question.error is not None:
                raise question.error.with_traceback(None)
            if question.answer is not None:
                return question.answer

    def forget(self) -> None:
        """Believe nothing of what the hub said: it is another one now."""
        self._last.clear()

    async def _asked(self, fill: int, offset: int) -> Progress:
        question = self._questions[fill, offset] = _Question()
        try:
            question.answer = await self._ask(fill, offset)
        except RegistryError as error:
            question.error = error
            raise
        finally:
            del self._questions[fill, offset]
            question.over.set()
            self._learn(fill, offset, question.answer)
        return question.answer

    def _learn(self, fill: int, offset: int, answer: Progress | None) -> None:
        """Remember what may be read of a fill that goes on."""
        last = self._last.pop(fill, None)
        if answer is None or answer.is_verified or answer.is_forgotten or answer.lost_room:
            return
        goes_on = last is not None and last.start <= offset <= last.progress.end
        self._last[fill] = _Stretch(last.start if last is not None and goes_on else offset, answer)
        if len(self._last) > _MOST_FILLS:
            del self._last[next(iter(self._last))]
