"""What changed on the hub's shelf, for the doors of other processes, which show the same."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections import deque
from collections.abc import Callable, Mapping

from mirror.channel import Changes, Membership
from mirror.store import Shelf
from mirror.store.records import encode_row
from mirror.store.shelf import Record

# A door that hears nothing for about a second no longer trusts its memory.
_BEAT_SECONDS = 0.25
_MOST_KEPT = 20_000
_MOST_AT_ONCE = 2_000


class ChangeLog:
    """The latest changes in order. Who asks after one that is no longer kept, or of another hub, starts over."""

    def __init__(self, shelf: Shelf, membership: Callable[[], Membership | None] = lambda: None) -> None:
        self._shelf = shelf
        self._membership = membership
        self._boot = secrets.token_hex(8)
        self._rows: deque[tuple[str, Record | None]] = deque(maxlen=_MOST_KEPT)
        self._end = 0
        self._inquiry = 0
        self._added = asyncio.Event()

    def add(self, rows: Mapping[str, Record | None]) -> None:
        """Note that rows changed on the shelf."""
        self._rows.extend(rows.items())
        self._end += len(rows)
        self._wake()

    def inquire(self) -> None:
        """Ask every door to report what it counted."""
        self._inquiry += 1
        self._wake()

    async def after(self, seen: str) -> Changes:
        """See `channel.Hub.changes`."""
        if self._start(seen) == self._end:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BEAT_SECONDS):
                    await self._added.wait()
        start = self._start(seen)
        if start is None:
            return await self._anew()
        skipped = start - (self._end - len(self._rows))
        rows = dict(itertools.islice(self._rows, skipped, skipped + _MOST_AT_ONCE))
        end = min(start + _MOST_AT_ONCE, self._end)
        is_complete = end == self._end
        is_settled = is_complete and not self._shelf.has_unwritten
        return Changes(
            self._name(end),
            _encoded(rows),
            is_complete=is_complete,
            is_settled=is_settled,
            inquiry=self._inquiry,
            membership=self._membership(),
        )

    async def _anew(self) -> Changes:
        name = self._name(self._end)
        rows = self._shelf.unwritten()
        if len(rows) > _MOST_KEPT:
            await asyncio.sleep(_BEAT_SECONDS)
            return Changes("", {}, is_anew=True, is_complete=False, membership=self._membership())
        return Changes(name, _encoded(rows), is_anew=True, is_settled=not rows, membership=self._membership())

    def _wake(self) -> None:
        added, self._added = self._added, asyncio.Event()
        added.set()

    def _start(self, seen: str) -> int | None:
        """Return the number of the first change after `seen`, None if it cannot be told what happened since."""
        boot, _, number = seen.rpartition(".")
        if boot != self._name(0).rpartition(".")[0] or not number.isdecimal():
            return None
        return int(number) if self._end - len(self._rows) <= int(number) <= self._end else None

    def _name(self, number: int) -> str:
        return f"{self._boot}.{self._shelf.generation}.{number}"


def _encoded(rows: Mapping[str, Record | None]) -> dict[str, bytes | None]:
    return {key: encode_row(row) for key, row in rows.items()}
