"""Servers that need not keep to HTTP: each connection is handed to a script, and every byte that was asked is kept."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import subprocess
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from tests.programs import require

ADDRESS = "127.0.0.1"
CERTIFICATE = "certificate.pem"
_LONGEST_HEAD = 4 * 2**20
_PIECE = 64 * 2**10
_WAIT_SECONDS = 30.0

T = TypeVar("T")


class Secrets(NamedTuple):
    """What nobody but one registry may see: the mirror's login there, and the tokens that the registry gives out."""

    username: str
    password: str
    token: str

    @property
    def basic(self) -> str:
        """The login as an Authorization header has it."""
        return base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    @property
    def spellings(self) -> tuple[bytes, ...]:
        """Every text that would give something away."""
        return self.password.encode(), self.basic.encode(), self.token.encode()


class Heard(NamedTuple):
    """The head of one request as it came in."""

    method: str
    target: str
    head: bytes

    def header(self, name: str) -> str:
        """Return the value of a header, "" if there is none."""
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.strip().lower() == name.lower():
                return value.strip()
        return ""


class Exchange:
    """One request, and the connection to answer it on; the connection ends with the script."""

    def __init__(self, peer: Peer, heard: Heard, writer: asyncio.StreamWriter) -> None:
        self.peer = peer
        self.heard = heard
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes as they are.

        Raises:
            ConnectionError: the client is gone.
        """
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, data: bytes) -> None:
        """Send a whole answer, of which a HEAD gets the head alone.

        Raises:
            ConnectionError: the client is gone.
        """
        await self.send(data[: data.find(b"\r\n\r\n") + 4] if self.heard.method == "HEAD" else data)

    def reset(self) -> None:
        """Break the connection."""
        self._writer.transport.abort()


Script = Callable[[Exchange], Awaitable[None]]


class Peer:
    """One listening port, what it does with a request, and what it was asked."""

    def __init__(self, script: Script, secrets: Secrets, elsewhere: str, scheme: str, *, is_deaf: bool) -> None:
        self.script = script
        self.is_deaf = is_deaf
        """Whether it answers without waiting for a request."""
        self.secrets = secrets
        self.elsewhere = elsewhere
        """The URL of a server that is no part of this one."""
        self.heard: list[Heard] = []
        self.open = 0
        """How many connections the client has not closed."""
        self.url = ""
        self.port = 0
        self._scheme = scheme
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def listen(self, tls: ssl.SSLContext | None) -> None:
        """Begin to accept connections."""
        self._server = await asyncio.start_server(self._answer, ADDRESS, 0, limit=_LONGEST_HEAD, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{self._scheme}://{ADDRESS}:{self.port}"

    async def close(self) -> None:
        """Refuse connections, and end those that are open."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def is_quiet_about(self, secrets: Secrets) -> bool:
        """Say whether nothing that came in holds any of these secrets."""
        return not any(spelling in heard.head for heard in tuple(self.heard) for spelling in secrets.spellings)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open += 1
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError):
                heard = Heard("", "", b"") if self.is_deaf else await _hear(reader)
                self.heard.append(heard)
                leaving = asyncio.create_task(_end_with(reader, task))
                try:
                    await self.script(Exchange(self, heard, writer))
                finally:
                    leaving.cancel()
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()


async def _end_with(reader: asyncio.StreamReader, task: asyncio.Task[Any]) -> None:
    """End what answers a connection when its client closes it."""
    with contextlib.suppress(OSError):
        while await reader.read(_PIECE):
            pass
    task.cancel()


async def _hear(reader: asyncio.StreamReader) -> Heard:
    head = await reader.readuntil(b"\r\n\r\n")
    method, target, *_ = head.decode("latin-1").split(" ", 2)
    return Heard(method, target, head)


class Servers:
    """Peers on one event loop, in a thread of their own."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hostile", daemon=True)

    def add(
        self,
        script: Script,
        secrets: Secrets,
        elsewhere: str = "",
        tls: ssl.SSLContext | None = None,
        *,
        pretends_tls: bool = False,
    ) -> Peer:
        """Begin to listen on a new port, with TLS if there is a context for it.

        One that pretends has an https URL, and says what its script says without waiting for a request.
        """
        scheme = "http" if tls is None and not pretends_tls else "https"
        peer = Peer(script, secrets, elsewhere, scheme, is_deaf=pretends_tls)
        self._run(peer.listen(tls))
        self.peers.append(peer)
        return peer

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAIT_SECONDS)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for peer in self.peers:
            self._run(peer.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_WAIT_SECONDS)
        self._loop.close()


def certified(folder: Path) -> ssl.SSLContext:
    """Return the TLS context of a server on loopback; its certificate, signed by itself, is in that folder."""
    key, certificate = folder / "key.pem", folder / CERTIFICATE
    if not certificate.exists():
        command = (require("openssl"), "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=hostile")
        names = ("-addext", f"subjectAltName=IP:{ADDRESS}", "-days", "1", "-keyout", str(key), "-out", str(certificate))
        subprocess.run((*command, *names), check=True, capture_output=True, timeout=60)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context
