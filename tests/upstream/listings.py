"""Tags and referrers, page by page."""

from __future__ import annotations

import itertools
import json
from urllib.parse import urlencode

from aiohttp import web

from tests.upstream.problems import not_found, problem, shaped
from tests.upstream.redirects import Redirects
from tests.upstream.routes import Route
from tests.upstream.site import Site
from tests.upstream.storage import Manifest

_INDEX = "application/vnd.oci.image.index.v1+json"
_REDIRECTS = {"redirected": (303, "/elsewhere"), "login": (302, "/login")}
_LOGIN = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in to continue</body></html>"


class Listings:
    """Serves both kinds of listing."""

    def __init__(self, site: Site, redirects: Redirects) -> None:
        self._site = site
        self._redirects = redirects
        self._cursors: dict[str, str] = {}
        self._numbers = itertools.count(1)

    async def tags(self, request: web.BaseRequest, route: Route) -> web.Response:
        """Answer `tags/list`."""
        dials, query = self._site.dials, request.query
        if dials.redirect_tags and route.origin == "registry":
            return self._redirects.elsewhere(request.raw_path)
        wanted = query.get("n")
        if wanted is not None and not wanted.isdigit():
            return problem(400, "PAGINATION_NUMBER_INVALID", f"n={wanted}")
        if wanted is not None and dials.tags_max is not None and int(wanted) > dials.tags_max:
            return problem(405, "UNSUPPORTED", f"n is at most {dials.tags_max}")
        last = query.get("last", "")
        if dials.tags_link == "opaque" and ("last" in query or query.get("cursor", "") not in {"", *self._cursors}):
            return problem(405, "UNSUPPORTED", "not a cursor of ours")
        last = self._cursors.get(query.get("cursor", ""), last)
        repository = self._site.storage.repository(route.repository)
        names = {*repository.tags, *(repository.manifests if dials.tags_digests else ())}
        tags = sorted(name for name in names if name > last)
        limits = [limit for limit in (int(wanted) if wanted else None, dials.tags_page) if limit is not None]
        page = tags[: min(limits)] if limits else tags
        document = {"name": route.repository, "tags": page if page or not dials.tags_null else None}
        headers = {"Content-Type": dials.tags_type}
        if page and len(page) < len(tags) and dials.tags_link != "none":
            headers["Link"] = self._next(request, route, page, wanted)
        return web.Response(body=json.dumps(document).encode(), headers=headers)

    def _next(self, request: web.BaseRequest, route: Route, page: list[str], wanted: str | None) -> str:
        mode = self._site.dials.tags_link
        if mode == "loop":
            return f'<{request.raw_path}>; rel="next"'
        size = {"n": wanted} if wanted else {}
        if mode == "opaque":
            cursor = f"cursor/{next(self._numbers)}+="
            self._cursors[cursor] = page[-1]
            query = urlencode(size | {"cursor": cursor})
        else:
            query = urlencode(size | {"last": page[-1]})
        host = {"absolute": self._site.registry_url, "foreign": self._site.cdn_url}.get(mode, "")
        return f'<{host}/v2/{route.repository}/tags/list?{query}>; rel="next"'

    async def referrers(self, request: web.BaseRequest, route: Route) -> web.Response:
        """Answer the referrers of a digest."""
        dials = self._site.dials
        if dials.referrers == "missing":
            return not_found(dials, "NOT_FOUND", "no referrers here")
        if dials.referrers == "html":
            return web.Response(text=_LOGIN, content_type="text/html")
        if dials.referrers in _REDIRECTS:
            status, location = _REDIRECTS[dials.referrers]
            return web.Response(status=status, headers={"Location": location})
        found = [
            _descriptor(manifest)
            for manifest in self._site.storage.repository(route.repository).referrers(route.digest)
        ]
        headers = {"Content-Type": dials.referrers_type}
        wanted = request.query.get("artifactType")
        if wanted is not None and dials.referrers_filter:
            found = [descriptor for descriptor in found if descriptor.get("artifactType") == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        if dials.referrers_page is not None:
            start = int(request.query.get("page", "0"))
            end = start + dials.referrers_page
            if end < len(found):
                query = urlencode({**request.query, "page": str(end)})
                headers["Link"] = f'<{request.path}?{query}>; rel="next"'
            found = found[start:end]
        if dials.referrers_loop:
            headers["Link"] = f'<{request.raw_path}>; rel="next"'
        document = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": found}
        return web.Response(body=json.dumps(document).encode(), headers=headers)

    async def elsewhere(self, request: web.BaseRequest, route: Route) -> web.Response:
        """Answer where redirected referrers end."""
        if request.path == "/login":
            return web.Response(text=_LOGIN, content_type="text/html")
        if request.path != "/elsewhere":
            return problem(404, "NAME_INVALID", "no such path")
        return shaped("html", self._site.dials.referrers_end, "", "Whoa there!")


def _descriptor(manifest: Manifest) -> dict[str, object]:
    document = manifest.document
    descriptor: dict[str, object] = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": len(manifest.body),
    }
    config = document.get("config")
    artifact_type = document.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else None)
    if artifact_type:
        descriptor["artifactType"] = artifact_type
    if document.get("annotations"):
        descriptor["annotations"] = document["annotations"]
    return descriptor
