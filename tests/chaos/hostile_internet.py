"""`python -m tests.chaos.hostile_internet serve`: Layover on an internet of names and addresses that are made up.

Only what the operating system would answer is replaced, at its edge: what a name resolves to, and where a connection
to an address ends, which is always a server on loopback. What Layover thinks of an address stays its own, and every
address that it dials is recorded.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mirror.__main__ import main

VARIABLE = "HOSTILE_INTERNET"
COMMAND = (sys.executable, "-m", "tests.chaos.hostile_internet", "serve")
_HANGING_SECONDS = 30.0


class Internet(msgspec.Struct):
    """What there is."""

    record: str
    """The file that has a line for each address dialled."""
    names: dict[str, list[list[str]]] = {}
    """The addresses of each name: the first lookup's, the next one's, and so on in turn; of no other name are any."""
    hanging: tuple[str, ...] = ()
    """Endings of names whose lookup takes half a minute, and fails."""
    routes: dict[str, int] = {}
    """Where an `address:port` is on loopback."""
    elsewhere: int = 0
    """The port on loopback where every other address ends."""

    @property
    def environment(self) -> dict[str, str]:
        """The variables that put a process on this internet."""
        return {VARIABLE: msgspec.json.encode(self).decode()}

    @property
    def dialled(self) -> list[str]:
        """Every `address:port` that was dialled so far."""
        path = Path(self.record)
        return path.read_text().splitlines() if path.exists() else []


class _Names:
    """Lookups of names."""

    def __init__(self, internet: Internet) -> None:
        self._internet = internet
        self._turns: dict[str, int] = {}
        self._lock = threading.Lock()
        self._real = socket.getaddrinfo

    def lookup(self, host: str | bytes | None, port: Any, *arguments: Any, **options: Any) -> Sequence[Any]:
        """Answer as `socket.getaddrinfo` would."""
        name = (host.decode() if isinstance(host, bytes) else host or "").lower().rstrip(".")
        if name.endswith(self._internet.hanging):
            time.sleep(_HANGING_SECONDS)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        answers = self._internet.names.get(name)
        if answers is None:
            # Addresses in all the spellings that the system's library takes; it asks no server for these.
            family, kind, protocol, _ = (*arguments, 0, 0, 0, 0)[:4] if arguments else (0, 0, 0, 0)
            given = {"family": family, "type": kind, "proto": protocol, **options, "flags": socket.AI_NUMERICHOST}
            return self._real(host, port, **given)
        with self._lock:
            turn = self._turns.get(name, 0)
            self._turns[name] = turn + 1
        addresses = answers[turn % len(answers)]
        return [_found(address, int(port or 0)) for address in addresses]


def _found(address: str, port: int) -> tuple[Any, ...]:
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))


def _note(internet: Internet, address: str) -> None:
    with Path(internet.record).open("a") as record:
        record.write(f"{address}\n")


def _route(internet: Internet, real: Any) -> Any:
    async def sock_connect(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any) -> None:
        if sock.family not in {socket.AF_INET, socket.AF_INET6}:
            await real(loop, sock, address)
            return
        host, port = address[0], address[1]
        _note(internet, f"{host}:{port}")
        if sock.family == socket.AF_INET6:
            raise ConnectionRefusedError("there is no IPv6 here")
        known = internet.routes.get(f"{host}:{port}")
        if known is None and not ipaddress.ip_address(host).is_loopback:
            known = internet.elsewhere
        await real(loop, sock, (host, port) if known is None else ("127.0.0.1", known))

    return sock_connect


def enter(environment: Mapping[str, str]) -> None:
    """Put this process on the internet that its environment describes."""
    internet = msgspec.json.decode(environment[VARIABLE], type=Internet)
    socket.getaddrinfo = _Names(internet).lookup  # type: ignore[assignment]
    loops = asyncio.selector_events.BaseSelectorEventLoop
    loops.sock_connect = _route(internet, loops.sock_connect)  # type: ignore[method-assign]


if __name__ == "__main__":
    enter(os.environ)
    sys.exit(main())
