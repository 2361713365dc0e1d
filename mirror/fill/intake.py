"""What arrived, on its way into the file: one write holds whatever came during the one before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

# So much waits for the disk at most, and as much again is being written, however many connections bring it.
_MOST_HELD = 2 * 2**20


class Intake:
    """Takes bytes from anywhere in a blob, in any order, and has them written by one writer."""

    def __init__(self, write: Callable[[Sequence[tuple[int, Sequence[bytes]]]], Awaitable[None]]) -> None:
        """Have runs of pieces, each with the offset of its first byte, written by `write`."""
        self._write = write
        self._runs: dict[int, tuple[int, list[bytes]]] = {}
        self._held = 0
        self._writing: asyncio.Task[None] | None = None

    def add(self, offset: int, piece: bytes) -> None:
        """Take in bytes."""
        run = self._runs.pop(offset, None) or (offset, [])
        run[1].append(piece)
        self._runs[offset + len(piece)] = run
        self._held += len(piece)

    async def ready(self) -> None:
        """Wait until there is room for more.

        Raises:
            OSError: what came before cannot be written.
        """
        if self._writing is not None and (self._writing.done() or self._held >= _MOST_HELD):
            await self._written()
        if self._runs and self._writing is None:
            self._writing = asyncio.create_task(self._drain())

    async def flush(self) -> None:
        """Wait until everything is written.

        Raises:
            OSError: it cannot be.
        """
        while self._runs or self._writing is not None:
            await self.ready()
            await self._written()

    async def end(self) -> None:
        """Wait until nothing is being written, whatever became of it."""
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)

    async def _written(self) -> None:
        writing = self._writing
        if writing is not None:
            await asyncio.shield(writing)
            if self._writing is writing:
                self._writing = None

    async def _drain(self) -> None:
        while self._runs:
            runs, self._runs, self._held = sorted(self._runs.values(), key=lambda run: run[0]), {}, 0
            await self._write(runs)
