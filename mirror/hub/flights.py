"""Single flight: whoever asks for what is already being done gets the same result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class Flights(Generic[Result]):
    """Tasks by what they do. A waiter's leaving ends nothing."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[Result]] = {}
        self._left: set[asyncio.Task[Result]] = set()

    def join(
        self, key: Hashable, start: Callable[[], Coroutine[Any, Any, Result]]
    ) -> tuple[asyncio.Future[Result], bool]:
        """Return a future of the task for `key`, begun now if there is none, and whether it was there before."""
        task = self._tasks.get(key)
        was_there = task is not None
        if task is None:
            task = self._tasks[key] = asyncio.create_task(start())
            task.add_done_callback(lambda done: self._landed(key, done))
        shared = asyncio.shield(task)
        # Whoever waits sees how it ended; a waiter that left is no reason to complain that nobody did.
        shared.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return shared, was_there

    def leave(self, key: Hashable) -> None:
        """Let the task for `key` go on alone: whoever asks next has a new one begun."""
        task = self._tasks.pop(key, None)
        if task is not None:
            self._left.add(task)

    def leave_all(self, is_meant: Callable[[Any], bool]) -> None:
        """Do so for every key that is meant."""
        for key in [key for key in self._tasks if is_meant(key)]:
            self.leave(key)

    async def close(self) -> None:
        """End every task."""
        tasks = [*self._tasks.values(), *self._left]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _landed(self, key: Hashable, task: asyncio.Task[Result]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may have
