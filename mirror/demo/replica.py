"""A replica as a process of its own, just as `layover serve` starts it, with its store in a folder of the demo's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

_START_SECONDS = 20.0
_STOP_SECONDS = 10.0


class ReplicaError(Exception):
    """The replica did not start; the text has the end of its log."""


class Replica:
    """A running replica on loopback with one upstream; usable as an asynchronous context manager."""

    def __init__(self, folder: Path, upstream: str, upstream_url: str, *, tag_ttl: str) -> None:
        self._log = folder / "replica.log"
        self._configuration = folder / "layover.toml"
        self._port, self._admin_port = _free_ports()
        self.url = f"http://127.0.0.1:{self._port}"
        self._settings = {
            "LAYOVER_CONFIG": str(self._configuration),
            "LAYOVER_SERVER__LISTEN": f"127.0.0.1:{self._port}",
            "LAYOVER_SERVER__ADMIN_LISTEN": f"127.0.0.1:{self._admin_port}",
            "LAYOVER_STORE__PATH": str(folder / "store"),
            "LAYOVER_FRESHNESS__TAG_TTL": tag_ttl,
            "LAYOVER_UPSTREAMS": json.dumps({upstream: {"url": upstream_url}}),
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            ReplicaError: it ended, or was not ready within 20 s.
        """
        self._configuration.touch()  # empty: a file in /etc stays out of the story
        log = self._log.open("ab")
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "mirror", "serve"),
                env=_environment() | self._settings,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        finally:
            log.close()
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._ready()
        except TimeoutError:
            raise ReplicaError(f"the mirror was not ready in {_START_SECONDS:.0f} s\n{self._log_end()}") from None

    async def stop(self) -> None:
        """End the process, kindly first; stopping twice is harmless."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _ready(self) -> None:
        async with aiohttp.ClientSession() as session:
            while self._process is not None:
                if self._process.returncode is not None:
                    raise ReplicaError(f"the mirror ended with exit code {self._process.returncode}\n{self._log_end()}")
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"http://127.0.0.1:{self._admin_port}/readyz") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.02)

    def _log_end(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def _environment() -> dict[str, str]:
    """Return this process's environment without what would change the story: settings and proxies."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("LAYOVER_") and not name.lower().endswith("_proxy")
    }


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]
