"""TLS in front of a data port, as a proxy there speaks it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.programs import require
from tests.replica import free_port

_PIECE = 256 * 2**10
_SECONDS = 30.0


class Terminator:
    """Takes TLS as `localhost` and passes on what comes to a port, in plain. `certificate` is its own issuer."""

    def __init__(self, folder: Path, port: int) -> None:
        self.certificate = folder / "certificate.pem"
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"
        self._key = folder / "key.pem"
        self._to = port
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="terminator", daemon=True)

    async def _start(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self._key)
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port, ssl=context)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, to_inner = await asyncio.open_connection("127.0.0.1", self._to)
        await asyncio.gather(_pump(reader, to_inner), _pump(inner, writer))

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __enter__(self) -> Self:
        words = "req -x509 -nodes -newkey rsa:2048 -subj /CN=localhost -days 2 -addext subjectAltName=DNS:localhost"
        files = ("-keyout", str(self._key), "-out", str(self.certificate))
        subprocess.run((require("openssl"), *words.split(), *files), check=True, capture_output=True, timeout=60)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._loop.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
