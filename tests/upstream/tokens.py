"""Tokens: how they are asked for, what they open, and when they stop."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import time
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs

from aiohttp import web

from tests.upstream.problems import problem
from tests.upstream.routes import Route
from tests.upstream.site import Site

Verdict = Literal["good", "late", "expired", "unknown", "denied"]


@dataclass
class Token:
    """A token that was given out. `user` is empty for an anonymous one."""

    scopes: tuple[str, ...]
    user: str
    made_at: float
    uses: int = 0


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


class Tokens:
    """The token endpoint and the memory of what it gave out."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._tokens: dict[str, Token] = {}

    async def answer(self, request: web.BaseRequest, route: Route) -> web.Response:
        """Answer a token request."""
        dials = self._site.dials
        if request.method not in ("GET", "POST"):
            return problem(405, "UNSUPPORTED", "GET or POST")
        if request.method == "POST":
            if dials.token_post is not None:
                return problem(dials.token_post, "UNSUPPORTED", "GET it")
            form = {name: values[0] for name, values in parse_qs((await request.content.read()).decode()).items()}
            scopes = tuple(form.get("scope", "").split())
            user = self._form_user(form)
        else:
            scopes = tuple(scope for line in request.query.getall("scope", []) for scope in line.split())
            user = self._user(request)
        if user is None or not (user or dials.anonymous):
            return problem(401, "UNAUTHORIZED", "incorrect username or password")
        return self._grant(scopes, user)

    def judge(self, token: str, repository: str, action: Literal["pull", "push"]) -> Verdict:
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

    def _grant(self, scopes: tuple[str, ...], user: str) -> web.Response:
        dials = self._site.dials
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

    def _user(self, request: web.BaseRequest) -> str | None:
        """Return who asks: "" for nobody, None for wrong credentials."""
        authorization = request.headers.get("Authorization")
        if authorization is None:
            return ""
        pair = credentials(authorization)
        return pair[0] if pair is not None and self._site.dials.users.get(pair[0]) == pair[1] else None

    def _form_user(self, form: dict[str, str]) -> str | None:
        users = self._site.dials.users
        if form.get("grant_type") == "password":
            name = form.get("username", "")
            return name if name in users and users[name] == form.get("password") else None
        return next((name for name, secret in users.items() if secret == form.get("refresh_token")), None)


def _opens(scope: str, repository: str, action: str) -> bool:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    return kind == "repository" and name == repository and (action in actions.split(",") or actions == "*")
