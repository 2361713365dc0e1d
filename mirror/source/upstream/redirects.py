"""Redirects, followed by hand: what authorises a request stays with the origin that it is for."""

from __future__ import annotations

from collections.abc import Callable

import aiohttp
from yarl import URL

from mirror.config import Upstream
from mirror.source.upstream import failures
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.connections import Connections

_MOST_HOPS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


async def follow(
    connections: Connections, ask: Ask, url: URL, authorize: Callable[[URL], str | None]
) -> aiohttp.ClientResponse:
    """Send a request to `url` and follow its redirects; `authorize` tells what each origin is authorised by, if at all.

    Raises:
        RegistryError: an exchange failed, or the redirects lead nowhere.
    """
    seen = {str(url)}
    for _ in range(_MOST_HOPS + 1):
        authorization = authorize(url.origin())
        own = {} if authorization is None else {"Authorization": authorization}
        headers = {**ask.headers, **own}
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
        # What a program, or a proxy, makes of other letters in a host is anybody's guess.
        is_plain = (target.host or "").isascii() and "@" not in target.raw_authority
    except (ValueError, UnicodeError):
        is_plain, target = False, URL()
    if not is_plain:
        raise failures.bad_redirect(upstream, "redirects to something that is no URL")
    if (
        target.scheme not in {"http", "https"}
        or target.host is None
        or (url.scheme, target.scheme) == ("https", "http")
    ):
        raise failures.bad_redirect(upstream, "redirects to something that is not https")
    return target
