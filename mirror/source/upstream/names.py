"""Names of hosts, looked up in threads that no other upstream's lookups wait for."""

from __future__ import annotations

import asyncio
import socket
import time
from concurrent.futures import Executor

from aiohttp.abc import AbstractResolver, ResolveResult

_REMEMBERED_SECONDS = 30.0
_PATIENCE_SECONDS = 5.0
_MOST_AT_ONCE = 8
_MOST_NAMES = 1000


class Names(AbstractResolver):
    """Looks up the hosts that one upstream leads to. What could not be found is looked up anew each time."""

    def __init__(self, threads: Executor) -> None:
        """Block in `threads`, in a few of them at a time."""
        self._threads = threads
        self._known: dict[str, tuple[float, list[ResolveResult]]] = {}
        self._asking: dict[str, asyncio.Task[list[ResolveResult]]] = {}
        self._turns = asyncio.Semaphore(_MOST_AT_ONCE)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a host.

        Raises:
            OSError: it has none, or they cannot be found out in time.
        """
        until, found = self._known.get(host, (0.0, []))
        if until <= time.monotonic():
            task = self._asking.get(host)
            if task is None:
                task = self._asking[host] = asyncio.create_task(self._look_up(host))
                task.add_done_callback(lambda done: self._ended(host, done))
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    found = await asyncio.shield(task)
            except TimeoutError:
                raise socket.gaierror(socket.EAI_AGAIN, "the lookup takes too long") from None
        return [ResolveResult({**each, "port": port}) for each in found if family in {each["family"], 0}]

    def forget(self, host: str) -> None:
        """Look a host up anew the next time: its addresses may have changed."""
        self._known.pop(host, None)

    async def close(self) -> None:
        """Give up what is being looked up; threads that hang end on their own."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)

    def _ended(self, host: str, task: asyncio.Task[list[ResolveResult]]) -> None:
        self._asking.pop(host, None)
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may have

    async def _look_up(self, host: str) -> list[ResolveResult]:
        async with self._turns:
            loop = asyncio.get_running_loop()
            try:
                found = await loop.run_in_executor(self._threads, _addresses, host)
            except (RuntimeError, UnicodeError) as error:
                # There is no room for another thread, or no such name can be.
                raise socket.gaierror(socket.EAI_FAIL, str(error)) from None
        while len(self._known) >= _MOST_NAMES:
            del self._known[next(iter(self._known))]
        self._known[host] = (time.monotonic() + _REMEMBERED_SECONDS, found)
        return found


def _addresses(host: str) -> list[ResolveResult]:
    infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return [
        ResolveResult(hostname=host, host=_text(address), port=0, family=family, proto=protocol, flags=flags)
        for family, _, protocol, _, address in infos
    ]


def _text(address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]) -> str:
    """Return an address as text, with the zone that a link-local one needs."""
    zone = address[3] if len(address) > 3 else 0
    return f"{address[0]}%{zone}" if zone else str(address[0])
