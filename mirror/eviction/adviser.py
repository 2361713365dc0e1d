"""The adviser: tells the ghost what was asked for, and gives its advice."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping

import structlog

from mirror.config.units import Size
from mirror.eviction.ghost import Advice, Ghost
from mirror.eviction.popularity import Popularity
from mirror.oci.digest import Digest
from mirror.oci.use import Use
from mirror.store import Store

_EVERY_SECONDS = 5.0
_SAVED_EVERY_SECONDS = 3600.0
# What is asked for and still on its way has no size yet; of so many it is waited for.
_MOST_UNSIZED = 10_000


class Adviser:
    """Watches what a store is asked for. Files are looked at in a thread, and only there is the ghost used."""

    def __init__(self, store: Store, low_mark: Size, popularity: Popularity) -> None:
        """Advise about `store`, which evicts down to `low_mark` by what `popularity` tells."""
        self._store = store
        self._low_mark = low_mark
        self._popularity = popularity
        self._memory = store.path / "advice"
        self._ghost: Ghost | None = None
        self._used: dict[Digest, Use] = {}
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._log = structlog.get_logger("layover.eviction")

    def start(self) -> None:
        """Begin to watch an open store."""
        self._store.usage.on_used.append(self._note)
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop; what the models know is kept for the next run."""
        if self._task is None:
            return
        self._closing.set()
        if self._ghost is None:
            self._task.cancel()
        await asyncio.wait({self._task})

    def advice(self) -> Advice:
        """Return what half and twice the disk would have served of what was asked for."""
        return Advice() if self._ghost is None else self._ghost.advice()

    def _note(self, used: Mapping[Digest, Use]) -> None:
        for digest, use in used.items():
            if use.times and (digest in self._used or len(self._used) < _MOST_UNSIZED):
                self._used[digest] = use.merged(self._used.get(digest))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        capacity = max(self._store.room.capacity, 1)
        ghost = Ghost(capacity, self._low_mark.of(capacity) / capacity, self._popularity)
        await loop.run_in_executor(self._store.disk, self._begin, ghost)
        self._ghost, saved_at = ghost, time.monotonic()
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_SECONDS):
                    await self._closing.wait()
            used, self._used = self._used, {}
            unsized = await loop.run_in_executor(self._store.disk, self._tell, ghost, used)
            for digest, use in unsized.items():
                self._used[digest] = use.merged(self._used.get(digest))
            if self._closing.is_set() or time.monotonic() >= saved_at + _SAVED_EVERY_SECONDS:
                saved_at = time.monotonic()
                await loop.run_in_executor(self._store.disk, self._save, ghost)

    def _begin(self, ghost: Ghost) -> None:
        """Go on where the last run came to, or else begin with what is held."""
        try:
            is_known = ghost.load(self._memory.read_bytes())
        except OSError:
            is_known = False
        if not is_known:
            ghost.begin(self._held())

    def _save(self, ghost: Ghost) -> None:
        fresh = self._memory.with_suffix(".new")
        try:
            fresh.write_bytes(ghost.dump())
            fresh.replace(self._memory)
        except OSError as error:
            self._log.warning("what other sizes would be worth cannot be saved", error=str(error))

    def _held(self) -> Iterator[tuple[Digest, int, float]]:
        return ((held.digest, held.size, held.used) for held in self._store.content.files())

    def _tell(self, ghost: Ghost, used: Mapping[Digest, Use]) -> Mapping[Digest, Use]:
        """Tell the ghost what was used; return that of which the size is not known yet."""
        unsized = {}
        for digest, use in used.items():
            size = self._store.content.size(digest)
            if size is None:
                unsized[digest] = use
            else:
                ghost.request(digest, size, use.last, use.times)
        return unsized
