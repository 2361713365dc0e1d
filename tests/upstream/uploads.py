"""Pushes of blobs: in one request, in chunks, or mounted from another repository."""

from __future__ import annotations

import itertools
import re

from aiohttp import web

from tests.upstream.problems import problem
from tests.upstream.routes import Route
from tests.upstream.site import Site
from tests.upstream.storage import ALGORITHMS, Incoming

_CONTENT_RANGE = re.compile(r"(\d+)-(\d+)")


class Uploads:
    """The upload sessions."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._numbers = itertools.count(1)
        self._sessions: dict[str, Incoming] = {}

    async def answer(self, request: web.BaseRequest, route: Route) -> web.Response:
        """Answer any upload request."""
        if not route.reference:
            return await self._start(request, route) if request.method == "POST" else _unsupported()
        session = self._sessions.get(route.reference)
        if session is None:
            return problem(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        if request.method == "GET":
            return self._state(route, session, 204)
        if request.method == "DELETE":
            self._sessions.pop(route.reference).close()
            return web.Response(status=204)
        if request.method not in ("PATCH", "PUT"):
            return _unsupported()
        bounds = _CONTENT_RANGE.fullmatch(request.headers.get("Content-Range", ""))
        if bounds is not None and int(bounds.group(1)) != session.size:
            return self._state(route, session, 416)
        await _receive(request, session)
        if request.method == "PATCH":
            return self._state(route, session, 202)
        del self._sessions[route.reference]
        return self._finish(route, session, request.query.get("digest", ""))

    async def _start(self, request: web.BaseRequest, route: Route) -> web.Response:
        storage = self._site.storage
        mount = request.query.get("mount", "")
        if mount and any(mount in repository.blobs for repository in storage.repositories.values()):
            storage.repository(route.repository).blobs.add(mount)
            return self._created(route, mount)
        session = storage.incoming()
        if "digest" in request.query:
            await _receive(request, session)
            return self._finish(route, session, request.query["digest"])
        number = f"{next(self._numbers):032x}"
        self._sessions[number] = session
        return self._state(Route("upload", route.repository, number), session, 202)

    def _state(self, route: Route, session: Incoming, status: int) -> web.Response:
        headers = {
            "Location": f"/v2/{route.repository}/blobs/uploads/{route.reference}",
            "Range": f"0-{max(0, session.size - 1)}",
            "Docker-Upload-UUID": route.reference,
        }
        return web.Response(status=status, headers=headers)

    def _finish(self, route: Route, session: Incoming, digest: str) -> web.Response:
        algorithm = digest.partition(":")[0]
        if algorithm not in ALGORITHMS or session.digest(algorithm) != digest:
            session.close()
            session.path.unlink()
            return problem(400, "DIGEST_INVALID", f"the content is not {digest}")
        self._site.storage.keep(route.repository, session, algorithm)
        return self._created(route, digest)

    def _created(self, route: Route, digest: str) -> web.Response:
        headers = {"Location": f"/v2/{route.repository}/blobs/{digest}", "Docker-Content-Digest": digest}
        return web.Response(status=201, headers=headers)


async def _receive(request: web.BaseRequest, session: Incoming) -> None:
    async for block in request.content.iter_chunked(2**18):
        session.write(block)


def _unsupported() -> web.Response:
    return problem(405, "UNSUPPORTED", "no such method")
