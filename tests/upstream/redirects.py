"""Signed URLs: where blobs are redirected to, and which of those URLs are still good."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

from aiohttp import web

from tests.upstream.routes import Route
from tests.upstream.site import Site

_XML = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'


@dataclass
class Signature:
    """A signed URL that was given out: how many hops it still is from the bytes, when it was made, how often used."""

    digest: str
    hops: int
    made_at: float
    uses: int = 0


class Redirects:
    """Gives out signed URLs and checks them when they come back."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._numbers = itertools.count(1)
        self._signatures: dict[str, Signature] = {}

    def blob(self, route: Route, hops: int) -> web.Response:
        """Redirect to a signed URL that is `hops` redirects from the bytes."""
        dials = self._site.dials
        if dials.redirect_to is not None:
            return self._redirect(dials.redirect_to)
        number = next(self._numbers)
        query = f"X-Credential=key%2F2026%2Fregion%2Faws4&X-Signature=a%2Bb%40c%7Ed%3D{number:08d}&x-id=GetObject"
        self._signatures[query] = Signature(route.digest, hops, time.monotonic())
        target = f"/storage/{route.repository}/{route.digest}?{query}"
        return self._redirect(target if dials.redirect_relative else self._cdn(number) + target)

    def elsewhere(self, path: str) -> web.Response:
        """Redirect a request to the same path on the CDN origin, or to where the dial says."""
        return self._redirect(self._site.dials.redirect_to or self._site.cdn_url + path)

    def refusal(self, request: web.BaseRequest, route: Route) -> web.Response | None:
        """Return why a request for a signed URL is turned away or sent on; None when it gets the bytes."""
        dials = self._site.dials
        if request.method == "HEAD" and dials.cdn_head_status is not None:
            return web.Response(status=dials.cdn_head_status)
        signature = self._signatures.get(request.raw_path.partition("?")[2])
        if dials.cdn_strict and "Authorization" in request.headers:
            return _storage_error(dials.cdn_authorization, "InvalidArgument", "Only one auth mechanism allowed")
        if signature is None or signature.digest != route.digest:
            return _storage_error(403, "SignatureDoesNotMatch", "not a signed URL") if dials.cdn_strict else None
        signature.uses += 1
        if dials.cdn_seconds is not None and time.monotonic() - signature.made_at > dials.cdn_seconds:
            return _storage_error(403, "AccessDenied", "Request has expired")
        if dials.cdn_uses is not None and signature.uses > dials.cdn_uses:
            return _storage_error(403, "AccessDenied", "Request has expired")
        if signature.hops != 1:
            return self.blob(route, signature.hops - 1)
        return None

    def _cdn(self, number: int) -> str:
        hosts = self._site.dials.cdn_hosts
        return self._site.cdn_url.replace("127.0.0.1", hosts[number % len(hosts)])

    def _redirect(self, location: str) -> web.Response:
        return web.Response(status=self._site.dials.redirect_status, headers={"Location": location})


def _storage_error(status: int, code: str, message: str) -> web.Response:
    return web.Response(status=status, text=_XML.format(code=code, message=message), content_type="application/xml")
