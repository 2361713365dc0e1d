"""Use: gathered in memory, told to who counts it, and written in batches as the content files' access time.

So no index can lose the last use.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import Executor
from typing import NamedTuple

from mirror.oci.digest import Digest
from mirror.oci.use import Use
from mirror.store.content import Content
from mirror.store.shelf import Shelf

_GATHERED_EVERY_SECONDS = 1.0
_EVERY_SECONDS = 10.0
# Doors of other processes say about once a second what they read.
_OPEN_SECONDS = 3.0


class _Reading(NamedTuple):
    """What a door reads, believed until a moment on the monotonic clock."""

    until: float
    digests: AbstractSet[Digest]


class Usage:
    """Takes what a shelf says was used every second, and writes it down every few."""

    def __init__(self, shelf: Shelf, disk: Executor) -> None:
        self.on_used: list[Callable[[Mapping[Digest, Use]], None]] = []
        self._shelf = shelf
        self._disk = disk
        self._task: asyncio.Task[None] | None = None
        self._unwritten: dict[Digest, float] = {}
        self._open: dict[str, _Reading] = {}

    def start(self) -> None:
        """Start writing."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Write what is left, and stop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self.write()

    def told(self, door: str, used: Mapping[Digest, Use]) -> None:
        """Take in what a door of another process used, and what it reads by now."""
        now = time.monotonic()
        self._shelf.add_used(used)
        self._open = {name: reading for name, reading in self._open.items() if reading.until > now}
        self._open[door] = _Reading(now + _OPEN_SECONDS, {digest for digest, use in used.items() if use.is_open})

    def is_open(self, digest: Digest) -> bool:
        """Say whether a client reads the content of `digest`, as far as is known here."""
        now = time.monotonic()
        is_told = any(digest in reading.digests and reading.until > now for reading in self._open.values())
        return is_told or digest in self._shelf.content.reading

    async def write(self) -> None:
        """Write down what was used until now."""
        self._gather()
        used, self._unwritten = self._unwritten, {}
        if used:
            await asyncio.get_running_loop().run_in_executor(self._disk, write_last_use, self._shelf.content, used)

    async def _run(self) -> None:
        written_at = time.monotonic()
        while True:
            await asyncio.sleep(min(_GATHERED_EVERY_SECONDS, _EVERY_SECONDS))
            self._gather()
            if time.monotonic() >= written_at + _EVERY_SECONDS:
                written_at = time.monotonic()
                await self.write()

    def _gather(self) -> None:
        used = self._shelf.take_used()
        self._unwritten.update({digest: use.last for digest, use in used.items()})
        if used:
            for told in self.on_used:
                told(used)


def write_last_use(content: Content, used: Mapping[Digest, float]) -> None:
    """Set the access times of content files to when they were last used, in seconds since the epoch. Blocks."""
    for digest, when in used.items():
        path = content.path(digest)
        with contextlib.suppress(OSError):
            changed = os.stat(path).st_mtime_ns  # noqa: PTH116 - beside utime, which pathlib lacks
            os.utime(path, ns=(int(when * 1e9), changed))
