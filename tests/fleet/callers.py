"""Clients that ask again and again over connections that stay open, in a process of their own, each answer timed.

`python -m tests.fleet.callers` reads a `Task` as a line of JSON from its standard input, calls until that ends, and
prints every `Call`. Nobody tries anything twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import aiohttp
import msgspec

from mirror.oci.media_types import OCI_INDEX, OCI_MANIFEST

_PATIENCE = 60.0
_ACCEPTED = f"{OCI_INDEX}, {OCI_MANIFEST}"


class Work(msgspec.Struct):
    """So many clients ask for `targets` in turn, each `pause` seconds after its last answer."""

    kind: str
    targets: list[str]
    clients: int
    pause: float


class Task(msgspec.Struct):
    """What all clients ask a replica for."""

    url: str
    works: list[Work]


class Call(msgspec.Struct, array_like=True):
    """One request: when it began on the monotonic clock, how long it took; `error` is empty if all was right."""

    kind: str
    at: float
    seconds: float
    error: str


class Callers:
    """Clients that call as long as the context lasts; after that `calls` are those that they made."""

    def __init__(self, url: str, works: Sequence[Work]) -> None:
        self.calls: list[Call] = []
        self._task = Task(url, list(works))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = (sys.executable, "-m", __name__)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(self._task) + b"\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == b"begun\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        try:
            text, _ = self._process.communicate(timeout=2 * _PATIENCE)
            self.calls = msgspec.json.decode(text, type=list[Call])
        finally:
            self._process.kill()
            self._process.wait(10)


async def _call(session: aiohttp.ClientSession, kind: str, target: str) -> Call:
    began, error = time.monotonic(), ""
    try:
        async with session.get(target) as answer:
            body = await answer.read()
        _, is_digest, name = target.rpartition("sha256:")
        if answer.status != 200:
            error = f"{target}: {answer.status} {body[:200]!r}"
        elif is_digest and hashlib.sha256(body).hexdigest() != name:
            error = f"{target}: is something else"
    except (aiohttp.ClientError, OSError, TimeoutError) as failed:
        error = f"{target}: {type(failed).__name__}: {failed}"
    return Call(kind, began, time.monotonic() - began, error)


async def _work(session: aiohttp.ClientSession, work: Work, first: int, ended: asyncio.Event) -> list[Call]:
    calls: list[Call] = []
    targets = itertools.cycle(work.targets[first:] + work.targets[:first])
    while not ended.is_set():
        calls.append(await _call(session, work.kind, next(targets)))
        await asyncio.sleep(work.pause)
    return calls


async def _run(task: Task) -> list[Call]:
    ended = asyncio.Event()
    async with aiohttp.ClientSession(
        task.url,
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(_PATIENCE),
        headers={"Accept": _ACCEPTED},
    ) as session:
        working = [
            asyncio.create_task(_work(session, work, number % len(work.targets), ended))
            for work in task.works
            for number in range(work.clients)
        ]
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
        ended.set()
        return [call for calls in await asyncio.gather(*working) for call in calls]


def _main() -> None:
    task = msgspec.json.decode(sys.stdin.buffer.readline(), type=Task)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(_run(task))))


if __name__ == "__main__":
    _main()
