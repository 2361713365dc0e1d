"""Who logs in, who fails to, and when that is too much."""

from __future__ import annotations

import base64
import binascii
import time

from aiohttp import web

from tests.upstream.problems import problem
from tests.upstream.site import Site

_WINDOW_SECONDS = 180.0


class Logins:
    """Checks names and passwords, and bans who fails too often."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._failed: list[float] = []
        self._banned_at: float | None = None

    def user(self, pair: tuple[str, str] | None) -> str | None:
        """Return the user whose name and password these are; None if they are nobody's, which is a failed login."""
        if pair is not None and self._site.dials.users.get(pair[0]) == pair[1]:
            return pair[0]
        self._fail()
        return None

    def by_secret(self, secret: str) -> str | None:
        """Return the user whose password, or refresh token, this is; None is a failed login."""
        user = next((name for name, known in self._site.dials.users.items() if known == secret), None)
        if user is None:
            self._fail()
        return user

    def ban(self) -> web.Response | None:
        """Return the answer to a login while too many have failed; None when it may be tried."""
        if self._banned_at is None or self._site.dials.login_limit is None:
            return None
        if time.monotonic() - self._banned_at > self._site.dials.login_ban_seconds:
            self._banned_at = None
            self._failed.clear()
            return None
        return problem(403, "DENIED", "too many failed logins; try again in an hour")

    def refusal(self) -> web.Response:
        """Return the answer to a login that failed."""
        if self._site.dials.wrong_password == 403:
            return problem(403, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")
        return problem(401, "UNAUTHORIZED", "incorrect username or password")

    def _fail(self) -> None:
        self._site.counters.fail_login()
        now = time.monotonic()
        self._failed = [*(moment for moment in self._failed if now - moment < _WINDOW_SECONDS), now]
        limit = self._site.dials.login_limit
        if limit is not None and len(self._failed) >= limit:
            self._banned_at = now


def credentials(authorization: str | None) -> tuple[str, str] | None:
    """Return the user and password of a Basic Authorization header, or None."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if colon else None
