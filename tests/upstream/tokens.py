"""Tokens: how they are asked for, what they open, and when they stop."""

from __future__ import annotations

import json
import re
import secrets
import time
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs

from aiohttp import web

from tests.upstream.logins import Logins, credentials
from tests.upstream.problems import problem
from tests.upstream.routes import Route
from tests.upstream.site import Site

Verdict = Literal["good", "late", "expired", "unknown", "denied"]

_SCOPE = re.compile(r"repository:[a-z0-9._/-]+:(?:pull|push|\*)(?:,(?:pull|push|\*))*")


@dataclass
class Token:
    """A token that was given out. `user` is empty for an anonymous one."""

    scopes: tuple[str, ...]
    user: str
    made_at: float
    uses: int = 0


class Tokens:
    """The token endpoint and the memory of what it gave out."""

    def __init__(self, site: Site, logins: Logins) -> None:
        self._site = site
        self._logins = logins
        self._tokens: dict[str, Token] = {}

    async def answer(self, request: web.BaseRequest, route: Route) -> web.Response:
        """Answer a token request."""
        dials = self._site.dials
        if request.method not in ("GET", "POST"):
            return problem(405, "UNSUPPORTED", "GET or POST")
        if request.method == "POST":
            if dials.token_post is not None:
                return problem(dials.token_post, "UNSUPPORTED", "GET it")
            form = await _form(request)
            scopes = tuple(form.get("scope", "").split())
            return self._grant(scopes, self._logins.ban() or self._form_user(form))
        scopes = tuple(scope for line in request.query.getall("scope", []) for scope in line.split())
        authorization = request.headers.get("Authorization")
        if authorization is None:
            return self._grant(scopes, "")
        return self._grant(scopes, self._logins.ban() or self._logins.user(credentials(authorization)))

    async def exchange(self, request: web.BaseRequest, route: Route) -> web.Response:
        """Give a refresh token for a cloud's access token."""
        known = self._site.dials.exchange
        if not known or request.method != "POST":
            return problem(405 if known else 404, "UNSUPPORTED", "no such path")
        form = await _form(request)
        user = known.get(form.get("access_token", ""))
        if user is None or form.get("grant_type") != "access_token" or not form.get("service"):
            return self._logins.refusal()
        return web.Response(
            text=json.dumps({"refresh_token": self._site.dials.users[user]}), content_type="application/json"
        )

    def judge(self, token: str, repository: str, action: str) -> Verdict:
        """Tell what a token is good for now."""
        dials = self._site.dials
        known = self._tokens.get(token)
        if known is None:
            return "unknown"
        if time.monotonic() - known.made_at > dials.token_lifetime:
            return "expired"
        known.uses += 1
        if dials.token_late and known.uses == 1:
            return "late"
        if not repository:
            return "good"
        if not known.user and (action == "push" or repository in dials.private):
            return "denied"
        if dials.challenge_scope_text is not None:
            return "good" if dials.challenge_scope_text in known.scopes else "denied"
        return "good" if any(_opens(scope, repository, action) for scope in known.scopes) else "denied"

    def user(self, token: str) -> str:
        """Return whose token this is; empty for an anonymous or unknown one."""
        return self._tokens[token].user if token in self._tokens else ""

    def expire(self) -> None:
        """Have every token be as old as can be."""
        for token in list(self._tokens.values()):
            token.made_at = float("-inf")

    def _grant(self, scopes: tuple[str, ...], user: str | web.Response | None) -> web.Response:
        """Answer `user`, who may be nobody, have failed to log in (None), or have been refused already."""
        dials = self._site.dials
        self._site.counters.ask_token(scopes)
        if isinstance(user, web.Response):
            return user
        if user is None:
            return self._logins.refusal()
        if not (user or dials.anonymous):
            return problem(401, "UNAUTHORIZED", "authentication required")
        if dials.token_strict_scope and not all(_SCOPE.fullmatch(scope) for scope in scopes):
            return problem(400, "INVALID_SCOPE", "malformed scope")
        if dials.token_denied is not None and not all(self._is_open(scope, user) for scope in scopes):
            return problem(dials.token_denied, "DENIED", "requested access to the resource is denied")
        token = secrets.token_urlsafe(48)
        self._tokens[token] = Token(() if dials.token_empty_grant else scopes, user, time.monotonic())
        document: dict[str, object] = dict.fromkeys(dials.token_fields, token)
        if dials.token_expires_in is not None:
            document["expires_in"] = dials.token_expires_in
        if dials.token_issued_at is not None:
            document["issued_at"] = dials.token_issued_at
        if dials.token_shape == "huge":
            document["padding"] = "x" * 2**21
        body = json.dumps(document) if dials.token_shape != "broken" else f"token={token}"
        return web.Response(text=body, headers={"Content-Type": dials.token_type})

    def _form_user(self, form: dict[str, str]) -> str | None:
        if form.get("grant_type") == "password":
            return self._logins.user((form.get("username", ""), form.get("password", "")))
        return self._logins.by_secret(form.get("refresh_token", ""))

    def _is_open(self, scope: str, user: str) -> bool:
        name = scope.partition(":")[2].rpartition(":")[0]
        return name in self._site.storage.repositories and (bool(user) or name not in self._site.dials.private)


async def _form(request: web.BaseRequest) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs((await request.read()).decode()).items()}


def _opens(scope: str, repository: str, action: str) -> bool:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    return kind == "repository" and name == repository and (action in actions.split(",") or actions == "*")
