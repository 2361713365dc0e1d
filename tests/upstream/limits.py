"""How many manifests may be fetched: in all, by each user, and in a second."""

from __future__ import annotations

import time

from aiohttp import web

from tests.upstream.problems import shaped
from tests.upstream.routes import Route
from tests.upstream.site import Site

_QUOTA_TEXT = (
    "You have reached your unauthenticated pull rate limit. "
    "Authenticate, or wait; the limit is counted over six hours for each address."
)
_ABUSE_TEXT = "Too Many Requests"


class Limits:
    """Counts manifest GETs on the registry's origin; HEAD is free."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._allowance = 0.0
        self._counted_at = float("-inf")

    def refusal(self, request: web.BaseRequest, route: Route, user: str) -> web.Response | None:
        """Return the 429 for a request by `user` that is over a limit; None for one that is counted and may pass."""
        if route.kind != "manifest" or route.origin != "registry" or request.method != "GET":
            return None
        if self._too_fast() or not self._use_up(user):
            return self._refusal()
        return None

    def marks(self, route: Route, user: str) -> dict[str, str]:
        """Return the headers that tell how much is left."""
        left = self._left(user)
        if left is None or route.kind != "manifest":
            return {}
        return {
            "ratelimit-limit": f"{self._site.dials.manifest_quota_limit};w=21600",
            "ratelimit-remaining": f"{left};w=21600",
            "docker-ratelimit-source": "127.0.0.1",
        }

    def _refusal(self) -> web.Response:
        dials = self._site.dials
        text = _QUOTA_TEXT if dials.limit_body == "json" else _ABUSE_TEXT
        headers = {} if dials.limit_retry_after is None else {"Retry-After": dials.limit_retry_after}
        return shaped(dials.limit_body, 429, "TOOMANYREQUESTS", text, headers)

    def _left(self, user: str) -> int | None:
        return self._site.dials.user_quotas.get(user, self._site.dials.manifest_quota)

    def _use_up(self, user: str) -> bool:
        dials, left = self._site.dials, self._left(user)
        if left is None:
            return True
        if left <= 0:
            return False
        if user in dials.user_quotas:
            dials.user_quotas[user] -= 1
        else:
            dials.manifest_quota = left - 1
        return True

    def _too_fast(self) -> bool:
        """Take one from a bucket that fills at the rate; tell whether it was empty."""
        dials, now = self._site.dials, time.monotonic()
        if dials.manifest_rate is None:
            return False
        self._allowance += (now - self._counted_at) * dials.manifest_rate
        self._allowance, self._counted_at = min(self._allowance, dials.manifest_burst), now
        if self._allowance < 1:
            return True
        self._allowance -= 1
        return False
