"""Answers to manifest requests: pulls, pushes and deletions."""

from __future__ import annotations

import hashlib

from aiohttp import web

from tests.upstream.problems import not_found, problem
from tests.upstream.redirects import Redirects
from tests.upstream.routes import Route
from tests.upstream.site import Site
from tests.upstream.storage import ALGORITHMS, Manifest
from tests.upstream.transfers import RawResponse

_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


class Manifests:
    """Serves manifests and takes them in."""

    def __init__(self, site: Site, redirects: Redirects) -> None:
        self._site = site
        self._redirects = redirects

    async def answer(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        """Answer any manifest request."""
        if request.method in ("GET", "HEAD"):
            return self._pull(request, route)
        if request.method == "PUT":
            return self._push(route, await request.content.read(), request.headers.get("Content-Type", ""))
        if request.method == "DELETE":
            return self._delete(route)
        return problem(405, "UNSUPPORTED", "no such method")

    def _pull(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        dials = self._site.dials
        manifest = self._find(route)
        if manifest is None:
            return not_found(dials, "MANIFEST_UNKNOWN", f"manifest {route.reference} is unknown")
        if dials.redirect_manifests and route.origin == "registry":
            return self._redirects.elsewhere(request.raw_path)
        if request.method == "HEAD" and dials.manifest_head_status is not None:
            return web.Response(status=dials.manifest_head_status)
        if dials.manifest_accept != "ignored" and not _accepts(request, manifest.media_type):
            if dials.manifest_accept == "strict":
                return not_found(dials, "MANIFEST_UNKNOWN", f"manifest is of type {manifest.media_type}")
            manifest = _schema1(route)
        body = manifest.body
        if dials.manifest_corrupt:
            body = body[:-2] + bytes((body[-2] ^ 1,)) + body[-1:]
        headers = self._headers(manifest, is_head=request.method == "HEAD")
        if request.method == "HEAD":
            length = {"Content-Length": str(len(body))} if dials.manifest_head_length else {}
            return RawResponse(headers=headers | length)
        response = web.Response(body=body, headers=headers)
        if not dials.manifest_length:
            response.enable_chunked_encoding()
        return response

    def _headers(self, manifest: Manifest, *, is_head: bool) -> dict[str, str]:
        dials = self._site.dials
        media_type = dials.manifest_head_type if is_head else dials.manifest_type
        headers = {"Content-Type": media_type or manifest.media_type}
        if dials.manifest_head_digest if is_head else dials.manifest_get_digest:
            digest = f"sha256:{'0' * 64}" if dials.manifest_wrong_digest else manifest.digest
            headers["Docker-Content-Digest"] = digest
        if dials.manifest_checksum:
            headers["X-Checksum-Sha256"] = hashlib.sha256(manifest.body).hexdigest()
        return headers

    def _find(self, route: Route) -> Manifest | None:
        repository = self._site.storage.repositories.get(route.repository)
        if repository is None:
            return None
        algorithm, _, value = route.reference.partition("-")
        if self._site.dials.dash_tags and algorithm in ALGORITHMS and f"{algorithm}:{value}" in repository.manifests:
            return repository.manifests[f"{algorithm}:{value}"]
        return repository.find(route.reference)

    def _push(self, route: Route, body: bytes, media_type: str) -> web.Response:
        algorithm = route.digest.partition(":")[0]
        if route.digest and algorithm not in ALGORITHMS:
            return problem(400, "DIGEST_INVALID", f"unknown algorithm {algorithm}")
        if route.digest and hashlib.new(algorithm, body).hexdigest() != route.digest.partition(":")[2]:
            return problem(400, "DIGEST_INVALID", "the body has another digest")
        manifest = self._site.storage.put(route.repository, route.reference, body, media_type)
        headers = {
            "Location": f"/v2/{route.repository}/manifests/{manifest.digest}",
            "Docker-Content-Digest": manifest.digest,
        }
        subject = manifest.document.get("subject")
        if isinstance(subject, dict):
            headers["OCI-Subject"] = str(subject.get("digest"))
        return web.Response(status=201, headers=headers)

    def _delete(self, route: Route) -> web.Response:
        if not self._site.storage.remove(route.repository, route.reference):
            return problem(404, "MANIFEST_UNKNOWN", f"manifest {route.reference} is unknown")
        return web.Response(status=202)


def _accepts(request: web.BaseRequest, media_type: str) -> bool:
    lines = ",".join(request.headers.getall("Accept", []))
    return media_type in {item.partition(";")[0].strip() for item in lines.split(",")}


def _schema1(route: Route) -> Manifest:
    body = f'{{\n  "schemaVersion": 1,\n  "name": "{route.repository}",\n  "tag": "{route.reference}"\n}}'.encode()
    return Manifest(f"sha256:{hashlib.sha256(body).hexdigest()}", _SCHEMA1, body)
