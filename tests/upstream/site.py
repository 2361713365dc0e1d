"""What the origins of the server share."""

from __future__ import annotations

import asyncio
import time

from tests.upstream.counters import Counters
from tests.upstream.dials import Dials
from tests.upstream.storage import Storage


class Pace:
    """Keeps a flow of bytes at or under a rate, over all who share it."""

    def __init__(self) -> None:
        self._free_at = 0.0

    async def wait(self, count: int, rate: int) -> None:
        """Wait until `count` more bytes may go at `rate` bytes per second."""
        self._free_at = max(self._free_at, time.monotonic()) + count / rate
        await asyncio.sleep(max(0.0, self._free_at - time.monotonic()))


class Site:
    """Content, dials, counters and addresses. The dials are replaced as a whole by a reset: look them up each time."""

    def __init__(self) -> None:
        self.storage = Storage()
        self.counters = Counters()
        self.dials = Dials()
        self.registry_url = ""
        self.cdn_url = ""
        self.auth_url = ""
        self.pace = Pace()
        self.release = asyncio.Event()

    def release_stalled(self) -> None:
        """Let every answer that is stalled now go on; loop thread only."""
        self.release.set()
        self.release = asyncio.Event()
