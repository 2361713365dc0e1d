"""What a door in a process of its own hears from its hub, and what it tells it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from concurrent.futures import Executor

from mirror.channel import Changes, Membership, RemoteHub
from mirror.observe.metrics import Sample
from mirror.observe.tally import process_name
from mirror.oci.errors import RegistryError
from mirror.store import Shelf

_REPORT_SECONDS = 1.0
_LAST_REPORT_SECONDS = 2.0
_HEAR_SECONDS = 1.0
# What a door heard from the hub is believed for so long, counted from its question: others may know more by then.
_TRUST_SECONDS = 0.9
_PAUSE_SECONDS = 0.05


class Follower:
    """Keeps a door's shelf as its hub's is, and reports what the door counted and what was used."""

    def __init__(self, hub: RemoteHub, shelf: Shelf, disk: Executor, counted: Callable[[], list[Sample]]) -> None:
        """Follow `hub`; files are opened in `disk`, and `counted` returns what the process has counted by now."""
        self._hub = hub
        self._shelf = shelf
        self._disk = disk
        self._counted = counted
        self._name = process_name()
        self._is_asked = asyncio.Event()
        self._membership: Membership | None = None
        self._knows_membership = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to follow and to report."""
        self._tasks = [asyncio.create_task(self._follow_for_ever()), asyncio.create_task(self._report_for_ever())]

    async def close(self) -> None:
        """Stop, with a last report."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        with contextlib.suppress(RegistryError, TimeoutError):
            async with asyncio.timeout(_LAST_REPORT_SECONDS):
                await self._report()

    async def open_index(self) -> None:
        """Show what is in the store's index, if there is one by now."""
        loop = asyncio.get_running_loop()
        self._shelf.follow(await loop.run_in_executor(self._disk, self._shelf.readers))

    async def membership(self) -> Membership | None:
        """Return what the replica is in its fleet: at first a door listens, and has yet to hear it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HEAR_SECONDS):
                await self._knows_membership.wait()
        return self._membership

    async def _follow_for_ever(self) -> None:
        """Show what the hub shows."""
        seen, inquiry = "", 0
        while True:
            asked_at = time.monotonic()
            try:
                changes = await self._hub.changes(seen)
            except RegistryError:
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            seen = follow(self._shelf, changes, asked_at)
            self._membership = changes.membership
            self._knows_membership.set()
            if changes.inquiry != inquiry:
                inquiry = changes.inquiry
                self._is_asked.set()
            if changes.is_anew or not self._shelf.is_open:
                await self.open_index()

    async def _report_for_ever(self) -> None:
        while True:
            with contextlib.suppress(RegistryError):
                self._is_asked.clear()
                await self._report()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REPORT_SECONDS):
                    await self._is_asked.wait()

    async def _report(self) -> None:
        used = self._shelf.take_used()
        try:
            await self._hub.report(self._name, self._counted(), used)
        except RegistryError:
            self._shelf.add_used(used)
            raise


def follow(shelf: Shelf, changes: Changes, asked_at: float) -> str:
    """Have a door's shelf show what changed on the hub's, as asked on the monotonic clock; return what is seen now."""
    if changes.is_anew:
        shelf.start_over(hides_index=not changes.is_complete)
    until = asked_at + _TRUST_SECONDS if changes.is_complete else -math.inf
    has_room = shelf.catch_up(changes.rows, is_settled=changes.is_settled, until=until)
    return changes.seen if has_room else ""
