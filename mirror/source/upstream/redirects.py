"""Redirects, followed by hand: what authorises a request stays with the origin that it is for."""

from __future__ import annotations

import aiohttp
from yarl import URL

from mirror.config import Upstream
from mirror.source.upstream import failures
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.connections import Connections

_MOST_HOPS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


async def follow(connections: Connections, ask: Ask, authorization: str | None) -> aiohttp.ClientResponse:
    """Send a request and follow its redirects; `authorization` goes to the origin of the request alone.

    Raises:
        RegistryError: an exchange failed, or the redirects lead nowhere.
    """
    url = ask.url
    origin = url.origin()
    seen = {str(url)}
    for _ in range(_MOST_HOPS + 1):
        headers = dict(ask.headers)
        if authorization is not None and url.origin() == origin:
            headers["Authorization"] = authorization
        answer = await connections.send(ask, url, headers)
        location = answer.headers.get("Location")
        if answer.status not in _REDIRECTS or location is None:
            return answer
        answer.release()
        url = _target(ask.upstream, url, location)
        if str(url) in seen:
            break
        seen.add(str(url))
    raise failures.bad_redirect(ask.upstream, "redirects in a circle or too often")


def _target(upstream: Upstream, url: URL, location: str) -> URL:
    try:
        target = url.join(URL(location, encoded=True))
        _ = target.port  # yarl looks only when it is asked
    except (ValueError, UnicodeError):
        raise failures.bad_redirect(upstream, "redirects to something that is no URL") from None
    if (
        target.scheme not in {"http", "https"}
        or target.host is None
        or (url.scheme, target.scheme) == ("https", "http")
    ):
        raise failures.bad_redirect(upstream, "redirects to something that is not https")
    return target
