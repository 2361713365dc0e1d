"""The registry behind the servers that are compared, as a process of its own on loopback.

`python -m tests.benchmarks.origin PORT SIZE… [--rate BYTES]` serves one manifest with a blob of each size. It prints
the digests as JSON once it listens. `GET /_cost` says what was asked of it so far.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from types import TracebackType
from typing import NamedTuple, Self
from urllib.request import urlopen

from aiohttp import web

from tests.benchmarks.content import REPOSITORY, Content, make_blob, make_manifest
from tests.replica import free_port

_PIECE = 2**18


class Cost(NamedTuple):
    """What the origin did: requests answered, and bytes of bodies sent."""

    requests: int
    sent: int


class Origin:
    """An origin process with blobs of these sizes, which sends at most `rate` bytes per second in all (0: no limit)."""

    def __init__(self, *sizes: int, rate: int = 0) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            (sys.executable, "-m", __name__, str(port), *map(str, sizes), "--rate", str(rate)), stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        digests = json.loads(self._process.stdout.readline())
        base = f"/v2/{REPOSITORY}"
        self.manifest = f"{base}/manifests/{digests[0]}"
        self.blobs = [f"{base}/blobs/{digest}" for digest in digests[1:]]

    def cost(self) -> Cost:
        """Return what was asked of the origin so far."""
        with urlopen(f"{self.url}/_cost", timeout=10) as answer:
            return Cost(**json.load(answer))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


class _Line:
    """A line that carries so many bytes per second for all answers together."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._free_at = 0.0

    async def carry(self, size: int) -> None:
        """Wait until so many bytes have gone through."""
        if self._rate:
            now = asyncio.get_running_loop().time()
            self._free_at = max(now, self._free_at) + size / self._rate
            await asyncio.sleep(self._free_at - now)


class _Server:
    def __init__(self, contents: list[Content], line: _Line) -> None:
        self._contents = {content.digest: content for content in contents}
        self._line = line
        self._requests = 0
        self._sent = 0

    async def ping(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response({})

    async def cost(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(Cost(self._requests, self._sent)._asdict())

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Serve a manifest or a blob, whole or the range asked for."""
        self._requests += 1
        content = self._contents.get(request.match_info["digest"])
        if content is None:
            raise web.HTTPNotFound
        headers = {
            "Content-Type": content.media_type,
            "Docker-Content-Digest": content.digest,
            "Accept-Ranges": "bytes",
        }
        response = web.StreamResponse(headers=headers)
        start, stop, _ = request.http_range.indices(content.size)
        if "Range" in request.headers:
            response.set_status(206)
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{content.size}"
        response.content_length = stop - start
        await response.prepare(request)
        if request.method != "HEAD":
            with contextlib.suppress(ConnectionResetError):
                await self._send(response, content, start, stop)
        return response

    async def _send(self, response: web.StreamResponse, content: Content, start: int, stop: int) -> None:
        while start < stop:
            piece = content.piece(start, min(_PIECE, stop - start))
            await self._line.carry(len(piece))
            await response.write(piece)
            self._sent += len(piece)
            start += len(piece)


async def _serve(port: int, sizes: list[int], rate: int) -> None:
    blobs = [make_blob(size) for size in sizes]
    contents = [make_manifest(blobs), *blobs]
    server = _Server(contents, _Line(rate))
    application = web.Application()
    application.router.add_get("/v2/", server.ping)
    application.router.add_get("/_cost", server.cost)
    application.router.add_get(f"/v2/{REPOSITORY}/{{kind:manifests|blobs}}/{{digest}}", server.answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    sys.stdout.write(json.dumps([content.digest for content in contents]) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("sizes", type=int, nargs="+")
    parser.add_argument("--rate", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a benchmark that is interrupted ends its origin itself
    asyncio.run(_serve(options.port, options.sizes, options.rate))


if __name__ == "__main__":
    main()
