"""The embedded registry: it holds one image, keeps count of what it is asked for, and can be switched off."""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple

from aiohttp import web

from mirror.demo.image import Image, Manifest
from mirror.oci.digest import Digest

BYTES_PER_SECOND = 16 * 2**20
"""Speed of one connection: that of a good line to a far registry, so that a cold pull can be watched."""

_PIECE = 2**17


class Cost(NamedTuple):
    """What the registry had to do: requests answered, and bytes of bodies sent."""

    requests: int
    sent: int


class Registry:
    """A registry on a free port of loopback that serves `image` under one repository and tag."""

    def __init__(self, image: Image, repository: str, tag: str) -> None:
        self._image = image
        self._tag = tag
        self._requests = 0
        self._sent = 0
        application = web.Application()
        application.router.add_get("/v2/", self._ping)
        application.router.add_get(f"/v2/{repository}/manifests/{{reference}}", self._manifest)
        application.router.add_get(f"/v2/{repository}/blobs/{{digest}}", self._blob)
        application.on_response_prepare.append(self._count)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)

    @property
    def url(self) -> str:
        """The registry's address; it must have been started."""
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def start(self) -> None:
        """Begin to listen."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()

    async def stop(self) -> None:
        """Close the port and every connection; stopping twice is harmless."""
        await self._runner.cleanup()

    def take_cost(self) -> Cost:
        """Return what was asked of the registry since the last call."""
        cost = Cost(self._requests, self._sent)
        self._requests = self._sent = 0
        return cost

    async def _count(self, _request: web.Request, _response: web.StreamResponse) -> None:
        self._requests += 1

    async def _ping(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response({})

    async def _manifest(self, request: web.Request) -> web.StreamResponse:
        reference = request.match_info["reference"]
        digest = self._image.top if reference == self._tag else Digest(reference)
        manifest = self._image.manifests.get(digest)
        if manifest is None:
            return _unknown("MANIFEST_UNKNOWN")
        return await self._send(request, digest, manifest)

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        digest = Digest(request.match_info["digest"])
        blob = self._image.blobs.get(digest)
        if blob is None:
            return _unknown("BLOB_UNKNOWN")
        return await self._send(request, digest, Manifest("application/octet-stream", blob))

    async def _send(self, request: web.Request, digest: Digest, content: Manifest) -> web.StreamResponse:
        """Send the body, or the one range of it that is asked for, at the speed of the line."""
        size = len(content.body)
        response = web.StreamResponse(
            headers={"Content-Type": content.media_type, "Docker-Content-Digest": digest, "Accept-Ranges": "bytes"}
        )
        start, stop = 0, size
        if "Range" in request.headers:
            try:
                start, stop, _ = request.http_range.indices(size)
            except ValueError:
                start = stop = size
            if start >= stop:
                return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
            response.set_status(206)
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        response.content_length = stop - start
        await response.prepare(request)
        if request.method != "HEAD":
            with contextlib.suppress(ConnectionResetError):
                await self._stream(response, memoryview(content.body)[start:stop])
        return response

    async def _stream(self, response: web.StreamResponse, body: memoryview) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for offset in range(0, len(body), _PIECE):
            piece = body[offset : offset + _PIECE]
            await response.write(piece)
            self._sent += len(piece)
            await asyncio.sleep(began + (offset + len(piece)) / BYTES_PER_SECOND - loop.time())


def _unknown(code: str) -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": "unknown to the demo's registry"}]}, status=404)
