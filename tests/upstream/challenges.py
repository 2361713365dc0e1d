"""Who is let in, and what the others are told."""

from __future__ import annotations

from typing import Literal

from aiohttp import web

from tests.upstream.problems import problem
from tests.upstream.routes import Route
from tests.upstream.site import Site
from tests.upstream.tokens import Tokens, Verdict, credentials


class Gatekeeper:
    """Checks the Authorization of a request and words the challenge."""

    def __init__(self, site: Site, tokens: Tokens) -> None:
        self._site = site
        self._tokens = tokens

    def refusal(self, request: web.BaseRequest, route: Route) -> web.Response | None:
        """Return the 401 for a request that may not pass; None for one that may."""
        dials = self._site.dials
        if dials.auth == "none" or (route.kind == "ping" and dials.ping_open):
            return None
        authorization = request.headers.get("Authorization", "")
        if dials.auth == "basic":
            pair = credentials(authorization)
            allowed = pair is not None and dials.users.get(pair[0]) == pair[1]
            return None if allowed else self._basic()
        action = _action(request)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return self._bearer(request, route, action, None)
        verdict = self._tokens.judge(token, route.repository, action)
        return None if verdict == "good" else self._bearer(request, route, action, verdict)

    def missing(self, request: web.BaseRequest, route: Route) -> web.Response:
        """Return the answer for a repository that does not exist."""
        if self._site.dials.missing_repository == 401:
            return self._bearer(request, route, "pull", "denied")
        return problem(404, "NAME_UNKNOWN", f"repository {route.repository} is unknown")

    def _basic(self) -> web.Response:
        headers = {"WWW-Authenticate": 'Basic realm="registry"'} if self._site.dials.challenge else None
        answer = problem(401, "UNAUTHORIZED", "authentication required", headers)
        answer.headers["Content-Type"] = self._site.dials.basic_type
        return answer

    def _bearer(
        self, request: web.BaseRequest, route: Route, action: Literal["pull", "push"], verdict: Verdict | None
    ) -> web.Response:
        dials = self._site.dials
        answer = problem(401, "UNAUTHORIZED", "authentication required")
        if not dials.challenge or (verdict == "expired" and not dials.expired_challenge):
            return answer
        realm = self._site.registry_url if dials.challenge_realm == "own" else self._site.cdn_url
        realm = f"{realm}/token"
        if verdict == "expired" and dials.expired_realm is not None:
            realm = dials.expired_realm
        quote = '"' if dials.challenge_quotes else ""
        parameters = [f'realm="{realm}"']
        if dials.challenge_service is not None:
            parameters.append(f"service={quote}{dials.challenge_service}{quote}")
        named = dials.challenge_scope == "always" or (dials.challenge_scope == "get" and request.method != "HEAD")
        if named and route.repository:
            actions = "pull,push" if action == "push" else "pull"
            scope = dials.challenge_scope_text or f"repository:{route.repository}:{actions}"
            parameters.append(f'scope="{scope}"')
        if verdict is not None:
            error = "insufficient_scope" if verdict == "denied" else "invalid_token"
            parameters.append(f"error={quote}{error}{quote}")
        for line in dials.challenge_extra:
            answer.headers.add("WWW-Authenticate", line)
        text = dials.challenge_parameters + ",".join(parameters)
        answer.headers.add("WWW-Authenticate", f"{dials.challenge_scheme} {text}")
        return answer


def _action(request: web.BaseRequest) -> Literal["pull", "push"]:
    return "pull" if request.method in ("GET", "HEAD") and "/blobs/uploads/" not in request.path else "push"
