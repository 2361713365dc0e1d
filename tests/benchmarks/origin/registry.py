"""The registry: what it answers, over its line, with its faults."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections import Counter
from urllib.parse import unquote

from tests.benchmarks.content import REPOSITORY, Content, Image
from tests.benchmarks.origin.faults import Faults
from tests.benchmarks.origin.http import Request, head, read_request, span, whole
from tests.benchmarks.origin.line import Line, Pace, answered_at
from tests.benchmarks.origin.process import Cost

_PIECE = 2**18
_PACED_PIECE = 2**17
# The first bytes of an answer are through before a whole piece would be.
_FIRST_PIECE = 2**14


class _Connection:
    """One client's connection, and how fast it is."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: int) -> None:
        self.reader = reader
        self.writer = writer
        self.pace = Pace(rate)
        self.opened = asyncio.get_running_loop().time()

    async def left_within(self, seconds: float) -> bool:
        """Wait so long, or until the client is gone; tell whether it is."""
        try:
            async with asyncio.timeout(seconds):
                return not await self.reader.read(1)
        except TimeoutError:
            return False


class Registry:
    """A registry's own origin, and that of its content delivery network."""

    def __init__(self, images: dict[str, Image], line: Line, store_url: str) -> None:
        self._line = line
        self._store_url = store_url
        self._pace = Pace(line.total_rate)
        self._tags = {tag: image.index for tag, image in images.items()}
        manifests = [content for image in images.values() for content in (image.index, image.manifest)]
        self._manifests = self._tags | {content.digest: content for content in manifests}
        self._blobs = {content.digest: content for image in images.values() for content in image.blobs}
        self._faults = Faults()
        self._counts: Counter[str] = Counter()

    async def registry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to the registry's origin."""
        await self._serve(reader, writer, at_store=False)

    async def store(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to the content delivery network."""
        await self._serve(reader, writer, at_store=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, at_store: bool) -> None:
        connection = _Connection(reader, writer, self._line.connection_rate)
        self._counts["connections"] += 1
        with contextlib.suppress(ConnectionError):
            while (request := await read_request(reader)) is not None:
                if request.path.startswith("/_"):
                    writer.write(self._control(request))
                elif self._faults.hang:
                    await reader.read()
                else:
                    self._counts["requests"] += 1
                    await self._arrive(connection)
                    if not await (self._at_store if at_store else self._at_registry)(connection, request):
                        break
        with contextlib.suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()

    async def _arrive(self, connection: _Connection) -> None:
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(answered_at(self._line, connection.opened, now) - now)

    def _control(self, request: Request) -> bytes:
        if request.path == "/_cost":
            return whole(200, Cost(**self._counts))
        self._faults = Faults(**json.loads(unquote(request.query)))
        return whole(200, {})

    async def _at_registry(self, connection: _Connection, request: Request) -> bool:
        """Answer, and tell whether the connection may be used again."""
        writer = connection.writer
        kind, _, reference = request.path.removeprefix(f"/v2/{REPOSITORY}/").rpartition("/")
        if self._faults.limited:
            writer.write(_refusal(request, 429, "TOOMANYREQUESTS", "too many requests"))
        elif request.path == "/v2/":
            writer.write(whole(200, {}, {"Docker-Distribution-Api-Version": "registry/2.0"}))
        elif kind == "manifests" and (manifest := self._manifests.get(reference)):
            body = b"" if request.method == "HEAD" else bytes(manifest.piece(0, manifest.size))
            writer.write(head(200, _headers(manifest) | {"Content-Length": manifest.size}) + body)
        elif kind == "blobs" and (blob := self._blobs.get(reference)):
            if not self._line.redirects:
                return await self._send(connection, request, blob)
            location = f"{self._store_url}/{reference}?signature={_signature(reference)}"
            writer.write(head(307, {"Location": location, "Content-Length": 0}))
        elif request.path == f"/v2/{REPOSITORY}/tags/list":
            writer.write(whole(200, {"name": REPOSITORY, "tags": sorted(self._tags)}))
        else:
            writer.write(_refusal(request, 404, "NOT_FOUND", f"{request.path} is not here"))
        return True

    async def _at_store(self, connection: _Connection, request: Request) -> bool:
        blob = self._blobs.get(request.path[1:])
        if blob is None or request.query != f"signature={_signature(blob.digest)}":
            connection.writer.write(head(403, {"Content-Length": 0}))
            return True
        return await self._send(connection, request, blob)

    async def _send(self, connection: _Connection, request: Request, blob: Content) -> bool:
        """Send a blob, whole or the range asked for; tell whether all of it went out."""
        headers = _headers(blob) | {"Accept-Ranges": "bytes"}
        asked = span(request.headers.get("range"), blob.size)
        start, stop = asked or (0, blob.size)
        if asked == (0, 0):
            connection.writer.write(head(416, {"Content-Range": f"bytes */{blob.size}", "Content-Length": 0}))
            return True
        if asked:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{blob.size}"
        connection.writer.write(head(206 if asked else 200, headers | {"Content-Length": stop - start}))
        if request.method == "HEAD":
            return True
        now = asyncio.get_running_loop().time()
        for pace in (connection.pace, self._pace):
            pace.begin(now)
        try:
            return await self._send_body(connection, blob, start, stop)
        finally:
            for pace in (connection.pace, self._pace):
                pace.end()

    async def _send_body(self, connection: _Connection, blob: Content, start: int, stop: int) -> bool:
        """Send part of a blob, with what faults there are; tell whether all of it went out."""
        end = min(stop, start + self._faults.cut) if self._faults.cut else stop
        if (stalled := self._faults.stall_within(start, end)) is not None:
            await self._pieces(connection, blob, start, stalled)
            self._counts["faults"] += 1
            if await connection.left_within(self._faults.stall_seconds):
                return False
            start = stalled
        await self._pieces(connection, blob, start, end)
        self._counts["faults"] += int(end < stop)
        return end == stop

    async def _pieces(self, connection: _Connection, blob: Content, start: int, stop: int) -> None:
        paced = self._line.connection_rate or self._line.total_rate
        loop = asyncio.get_running_loop()
        limit = _FIRST_PIECE if paced else _PIECE
        while start < stop:
            piece = blob.piece(start, min(limit, stop - start))
            limit = _PACED_PIECE if paced else _PIECE
            if paced:
                now = loop.time()
                free = max(connection.pace.through(len(piece), now), self._pace.through(len(piece), now))
                await asyncio.sleep(free - now)
            if self._faults.corrupt and start <= blob.size // 2 < start + len(piece):
                piece = _flip(piece, blob.size // 2 - start)
            connection.writer.write(piece)
            await connection.writer.drain()
            self._counts["sent"] += len(piece)
            start += len(piece)


def _headers(content: Content) -> dict[str, object]:
    return {"Content-Type": content.media_type, "Docker-Content-Digest": content.digest, "ETag": f'"{content.digest}"'}


def _refusal(request: Request, status: int, code: str, message: str) -> bytes:
    answer = whole(status, {"errors": [{"code": code, "message": message}]})
    # A body behind the answer to a HEAD would be a broken connection to whoever asked.
    return answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if request.method == "HEAD" else answer


def _signature(digest: str) -> str:
    return hashlib.sha256(f"signed {digest}".encode()).hexdigest()


def _flip(piece: memoryview, offset: int) -> memoryview:
    changed = bytearray(piece)
    changed[offset] ^= 1
    return memoryview(changed)
