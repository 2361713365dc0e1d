"""A long line to a server: what a registry on another continent adds to every connection and every answer."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_READ = 2**16
_SECONDS = 10.0


class Line:
    """Relays connections to a server: one round trip to open each, and half of one in each direction."""

    def __init__(self, url: str, round_trip: float) -> None:
        """Relay to `url` from a free port of loopback, in a thread of its own; `round_trip` in seconds."""
        self._server = urlsplit(url)
        self._round_trip = round_trip
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="line", daemon=True)
        self._thread.start()
        opening = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._relay, "127.0.0.1", 0), self._loop)
        self._listening = opening.result(_SECONDS)
        self.url = f"{self._server.scheme}://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        """End every connection."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._loop.close()

    async def _close(self) -> None:
        self._listening.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opening = asyncio.current_task()
        assert opening is not None
        self._note(opening)
        try:
            # A client counts itself connected at once: what it sends first goes out when it really would have been.
            await asyncio.sleep(self._round_trip)
            far_reader, far_writer = await asyncio.open_connection(self._server.hostname, self._server.port)
        except BaseException:
            writer.close()
            raise
        for source, target in ((reader, far_writer), (far_reader, writer)):
            self._note(asyncio.get_running_loop().create_task(self._carry(source, target)))

    def _note(self, task: asyncio.Task[None]) -> None:
        """Have a task ended with the line."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            while piece := await source.read(_READ):
                loop.call_later(self._round_trip / 2, target.write, piece)
            await asyncio.sleep(self._round_trip / 2)
        except ConnectionError:
            pass
        finally:
            target.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
