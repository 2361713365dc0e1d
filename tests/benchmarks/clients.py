"""Clients that pull an image as runtimes do and verify every byte, in processes of their own.

`python -m tests.benchmarks.clients ARGUMENTS` waits for a line on its input, pulls, and prints each `Pull` as JSON.
A pull is the manifest by tag, the platform's manifest, then the config and the layers, three at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.benchmarks.content import REPOSITORY

_BUFFER = 2**18
_AT_ONCE = 3
PATIENCE = 120.0
ACCEPT = ", ".join(f"application/vnd.oci.image.{kind}.v1+json" for kind in ("index", "manifest"))


class Pull(NamedTuple):
    """How one client fared; times in seconds on the machine's monotonic clock.

    `right` and `wrong` count the blobs that came whole, with the right digest and with another; `pause` is the longest
    time in which no byte came.
    """

    began: float
    first_blob_byte: float
    ended: float
    pause: float
    right: int
    wrong: int
    error: str


class Crowd(NamedTuple):
    """How all clients of one measurement fared together."""

    pulls: tuple[Pull, ...]

    @property
    def seconds(self) -> float:
        """Return the time from the first client's start to the last one's end."""
        return max(pull.ended for pull in self.pulls) - min(pull.began for pull in self.pulls)

    @property
    def failed(self) -> list[str]:
        """Return why clients failed, one line for each."""
        return [pull.error or "a blob was wrong" for pull in self.pulls if pull.error or pull.wrong]


def pull(url: str, tag: str, clients: int = 1, gap: float = 0.0, patience: float = PATIENCE) -> Crowd:
    """Pull an image with so many clients, each starting `gap` seconds after the one before; it fails at `patience`."""
    workers = min(clients, os.cpu_count() or 1)
    begun = []
    with contextlib.ExitStack() as stack:
        for number in range(workers):
            starts = [index * gap for index in range(number, clients, workers)]
            arguments = {"url": url, "tag": tag, "starts": starts, "patience": patience}
            command = (sys.executable, "-m", __name__, json.dumps(arguments))
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            begun.append(process)
        for process in begun:
            assert process.stdout is not None
            process.stdout.readline()
        start = time.monotonic()
        for process in begun:
            assert process.stdin is not None
            process.stdin.write(f"{start}\n")
            process.stdin.flush()
        limit = patience + clients * gap + 10
        answers = [process.communicate(timeout=limit)[0] for process in begun]
    return Crowd(tuple(Pull(*fields) for answer in answers for fields in json.loads(answer)))


class _Connection(asyncio.BufferedProtocol):
    """One connection, on which one response at a time is read, hashed, and dropped or kept."""

    def __init__(self, buffer: memoryview, progress: _Progress) -> None:
        self._buffer = buffer
        self._progress = progress
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None

    async def get(self, path: str, host: str) -> bytes:
        """Ask for `path`, and return once all of its body was hashed; what is returned is at most 1 MiB of it."""
        assert self._transport is not None
        self._head, self._kept = b"", bytearray()
        self._left: int | None = None
        self._hasher = hashlib.sha256()
        self._done = asyncio.get_running_loop().create_future()
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {ACCEPT}\r\n\r\n"
        self._is_blob = "/blobs/" in path
        self._transport.write(request.encode())
        await self._done
        return bytes(self._kept)

    @property
    def digest(self) -> str:
        """Return the digest of the last body."""
        return f"sha256:{self._hasher.hexdigest()}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._take(self._buffer[:nbytes])

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"closed with {self._left} bytes missing" if exc is None else str(exc))

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _take(self, data: memoryview) -> None:
        self._progress.came()
        if self._left is None:
            self._head += data
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            lines = head.decode("latin-1").lower().split("\r\n")
            if lines[0].split()[1] != "200":
                self._fail(f"{lines[0]}: {body[:100]!r}")
                return
            self._left = next((int(line[15:]) for line in lines if line.startswith("content-length:")), None)
            if self._left is None:
                self._fail("no content-length")
                return
            data = memoryview(body)
        if self._is_blob and data:
            self._progress.came_of_blob()
        self._hasher.update(data)
        self._left -= len(data)
        if not self._is_blob:
            self._kept += data
        if not self._left and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _fail(self, why: str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError(why))


class _Progress:
    """When bytes came."""

    def __init__(self) -> None:
        self.began = self._last = time.monotonic()
        self.first_blob_byte = 0.0
        self.pause = 0.0

    def came(self) -> None:
        """Take note of bytes."""
        now = time.monotonic()
        self.pause = max(self.pause, now - self._last)
        self._last = now

    def came_of_blob(self) -> None:
        """Take note of bytes of a blob."""
        self.first_blob_byte = self.first_blob_byte or self._last


class _Client:
    def __init__(self, url: str, buffer: memoryview) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._address = (parts.hostname, parts.port)
        self._host = parts.netloc
        self._buffer = buffer
        self._progress = _Progress()
        self._right = self._wrong = 0
        self._connections: list[_Connection] = []

    async def pull(self, tag: str, patience: float) -> Pull:
        """Pull the image and say how it went."""
        error = ""
        try:
            async with asyncio.timeout(patience):
                await self._pull(tag)
        except (OSError, ValueError, LookupError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        finally:
            for connection in self._connections:
                connection.close()
        progress = self._progress
        times = (progress.began, progress.first_blob_byte, time.monotonic(), progress.pause)
        return Pull(*times, self._right, self._wrong, error)

    async def _pull(self, tag: str) -> None:
        base = f"/v2/{REPOSITORY}"
        connection = await self._connect()
        index = json.loads(await connection.get(f"{base}/manifests/{tag}", self._host))
        digest = index["manifests"][0]["digest"]
        manifest = json.loads(await connection.get(f"{base}/manifests/{digest}", self._host))
        if connection.digest != digest:
            raise ValueError("the manifest is wrong")
        waiting = [blob["digest"] for blob in (manifest["config"], *manifest["layers"])]
        outcomes = await asyncio.gather(
            *(self._fetch(base, waiting, None if number else connection) for number in range(_AT_ONCE)),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _fetch(self, base: str, waiting: list[str], connection: _Connection | None) -> None:
        """Pull blobs until none is waiting."""
        while waiting:
            digest = waiting.pop(0)
            connection = connection or await self._connect()
            await connection.get(f"{base}/blobs/{digest}", self._host)
            self._right += connection.digest == digest
            self._wrong += connection.digest != digest

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self._buffer, self._progress), *self._address)
        self._connections.append(connection)
        return connection


async def _run(url: str, tag: str, starts: Sequence[float], patience: float, begin: float) -> list[Pull]:
    buffer = memoryview(bytearray(_BUFFER))  # one is enough: what is in it is hashed before anything else is read

    async def one(start: float) -> Pull:
        await asyncio.sleep(begin + start - time.monotonic())
        return await _Client(url, buffer).pull(tag, patience)

    return list(await asyncio.gather(*map(one, starts)))


def main() -> None:
    """Pull, and print how it went."""
    arguments = json.loads(sys.argv[1])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    begin = float(sys.stdin.readline())
    pulls = asyncio.run(_run(**arguments, begin=begin))
    sys.stdout.write(json.dumps(pulls) + "\n")


if __name__ == "__main__":
    main()
