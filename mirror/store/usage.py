"""Last use: gathered in memory, written in batches as the content files' access time, so that no index can lose it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from concurrent.futures import Executor

from mirror.oci.digest import Digest
from mirror.store.content import Content
from mirror.store.shelf import Shelf

_EVERY_SECONDS = 10.0


class Usage:
    """Writes down every few seconds what a shelf says was used."""

    def __init__(self, shelf: Shelf, disk: Executor) -> None:
        self._shelf = shelf
        self._disk = disk
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start writing."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Write what is left, and stop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._write()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            await self._write()

    async def _write(self) -> None:
        used = self._shelf.take_used()
        if used:
            await asyncio.get_running_loop().run_in_executor(self._disk, write_last_use, self._shelf.content, used)


def write_last_use(content: Content, used: Mapping[Digest, float]) -> None:
    """Set the access times of content files to when they were last used, in seconds since the epoch. Blocks."""
    for digest, when in used.items():
        path = content.path(digest)
        with contextlib.suppress(OSError):
            changed = os.stat(path).st_mtime_ns  # noqa: PTH116 - beside utime, which pathlib lacks
            os.utime(path, ns=(int(when * 1e9), changed))
