"""What lies between regions, in user space: it delays and counts what passes, and can be cut or swallow everything."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.replica import free_port

_PIECE = 256 * 2**10
_MOST_PIECES = 64
_WAIT_SECONDS = 30.0
_ASKER = re.compile(rb"\r\nLayover-Sibling: [^\r]*\bfrom=([0-9a-f-]+)")


class Line:
    """The line between regions, as relays in front of replicas: all that siblings ask one another passes through them.

    What stays in a region passes as it is. What passes between two takes `delay` seconds each way, is counted in
    `passed`, and ends or stands still as the test says.
    """

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.passed = 0
        self.is_cut = False
        self._open = asyncio.Event()
        self._open.set()
        self._regions: dict[Path, str] = {}
        self._between: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="line", daemon=True)

    def relay(self, region: str, port: int, store: Path | None = None) -> int:
        """Lead to a server in `region`, at `port`, and return the port of the relay that does.

        `store` is the replica's whose server it is, by which what it asks others itself is known.
        """
        if store is not None:
            self._regions[store] = region
        listening = free_port()

        async def serve() -> None:
            async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await self._pass_on(reader, writer, region, port)

            self._servers.append(await asyncio.start_server(pass_on, "127.0.0.1", listening, limit=_PIECE))

        self._run(serve())
        return listening

    def cut(self) -> None:
        """End every connection between regions, and each new one as it comes."""
        self.is_cut = True

        async def end() -> None:
            for task in self._between:
                task.cancel()

        self._run(end())

    def swallow(self) -> None:
        """Let nothing through between regions any more, without a word."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def heal(self) -> None:
        """Let everything through again."""
        self.is_cut = False
        self._loop.call_soon_threadsafe(self._open.set)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, region: str, port: int
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            first = await reader.read(_PIECE)
            is_between = self._region_of(first) != region
            if is_between:
                self._between.add(task)
            if is_between and self.is_cut:
                return
            theirs, to_them = await asyncio.open_connection("127.0.0.1", port, limit=_PIECE)
            ways = [
                asyncio.create_task(self._carry(reader, to_them, first, is_between=is_between)),
                asyncio.create_task(self._carry(theirs, writer, b"", is_between=is_between)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                to_them.transport.abort()
        except OSError:
            pass
        except asyncio.CancelledError:
            # What is cut ends with a reset, and is not the server's concern.
            pass
        finally:
            self._between.discard(task)
            writer.transport.abort()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes, *, is_between: bool
    ) -> None:
        """Carry what comes until it ends, after what came `first`; all that came before the end arrives."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST_PIECES)
        delivering = asyncio.create_task(self._deliver(under_way, writer, is_between=is_between))
        try:
            while True:
                piece, first = first or await reader.read(_PIECE), b""
                await under_way.put((time.monotonic() + (self.delay if is_between else 0.0), piece))
                if not piece:
                    break
            await delivering
        finally:
            delivering.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await delivering

    async def _deliver(
        self, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, *, is_between: bool
    ) -> None:
        while True:
            due, piece = await under_way.get()
            if due > time.monotonic():
                await asyncio.sleep(due - time.monotonic())
            if is_between:
                await self._open.wait()
            if not piece:
                with contextlib.suppress(OSError):
                    await writer.drain()
                return
            if is_between:
                self.passed += len(piece)
            writer.write(piece)
            await writer.drain()

    def _region_of(self, first: bytes) -> str:
        """Return the region of the replica that says this first on a connection; empty if it is none."""
        said = _ASKER.search(first)
        for store, region in self._regions.items():
            with contextlib.suppress(OSError):
                if said is not None and json.loads((store / "identity").read_bytes())["identity"] == said[1].decode():
                    return region
        return ""

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAIT_SECONDS)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async def end() -> None:
            for server in self._servers:
                server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_WAIT_SECONDS)
        # Connections that were just ended tell so in the turn of the loop that comes next.
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()
