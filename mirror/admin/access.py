"""Who may use the API: whoever has the token; without one, programs of this machine, but no web page in a browser."""

from __future__ import annotations

import hmac
import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from mirror.admin.problem import Problem
from mirror.config.settings import Server

_LONGEST = 2**16
_SCHEME = "Bearer "


class Access:
    """The rules of `[server] admin_token`."""

    def __init__(self, settings: Server) -> None:
        self._token = settings.admin_token
        self._file = settings.admin_token_file
        self._is_local = _is_loopback(settings.admin_listen.host)

    def check(self, request: web.Request) -> None:
        """Let a request pass.

        Raises:
            Problem: it may not.
        """
        _refuse_foreign_pages(request)
        token = self._current()
        if token:
            given = request.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(errors="replace"), f"{_SCHEME}{token}".encode()):
                raise Problem(401, "this needs the token of server.admin_token, as Authorization: Bearer …")
        elif not self._is_local:
            text = "server.admin_listen is not a loopback address: set server.admin_token to use the API"
            raise Problem(403, text)
        elif not _is_loopback(urlsplit(f"//{request.host}").hostname or ""):
            # The name of a web page's own server may be made to lead here.
            raise Problem(403, f"{request.host!r} is no name of this machine's loopback: ask by 127.0.0.1 or localhost")

    def _current(self) -> str:
        """Return the token as it stands now.

        Raises:
            Problem: it cannot be read, and so nobody can have it.
        """
        if not self._file:
            return self._token
        try:
            with Path(self._file).expanduser().open("rb") as file:
                token = file.read(_LONGEST).decode().strip()
        except (OSError, RuntimeError, ValueError):
            token = ""
        if not token:
            raise Problem(403, "server.admin_token_file cannot be read, or is empty")
        return token


def _refuse_foreign_pages(request: web.Request) -> None:
    """Refuse what a browser sends for a page of somebody else."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "none")
    is_foreign = origin is not None and urlsplit(origin).netloc.lower() != request.host.lower()
    if is_foreign or site not in {"none", "same-origin"}:
        raise Problem(403, "web pages of others may not use the API")
    if request.can_read_body and request.content_type != "application/json":
        raise Problem(415, "the body has to be JSON, with Content-Type: application/json")


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
