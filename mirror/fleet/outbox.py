"""What is told soon: gathered while Redis is away, and sent in batches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from mirror.fleet.link import Away


class Outbox:
    """Calls `send` soon after it was rung, and again until that does not raise Away."""

    def __init__(self, send: Callable[[], Awaitable[None]], pause: float) -> None:
        """Wait for `pause` seconds before each time, so that what comes together goes together."""
        self._send = send
        self._pause = pause
        self._rung = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._run())

    def ring(self) -> None:
        """Have something to be sent."""
        self._rung.set()

    async def close(self) -> None:
        """Send what is left, once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            with contextlib.suppress(Away):
                await self._send()

    async def _run(self) -> None:
        while True:
            await self._rung.wait()
            await asyncio.sleep(self._pause)
            self._rung.clear()
            try:
                await self._send()
            except Away:
                self._rung.set()
                await asyncio.sleep(max(self._pause, 0.5))
