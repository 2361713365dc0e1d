"""Who is let in, and what the others are told."""

from __future__ import annotations

from aiohttp import web

from tests.upstream.logins import Logins, credentials
from tests.upstream.problems import not_found, problem
from tests.upstream.routes import Route
from tests.upstream.site import Site
from tests.upstream.tokens import Tokens, Verdict


class Gatekeeper:
    """Checks the Authorization of a request and words the challenge."""

    def __init__(self, site: Site, tokens: Tokens, logins: Logins) -> None:
        self._site = site
        self._tokens = tokens
        self._logins = logins

    def refusal(self, request: web.BaseRequest, route: Route) -> web.Response | None:
        """Return the 401 or 403 for a request that may not pass; None for one that may."""
        dials = self._site.dials
        if dials.auth == "none" or (route.kind == "ping" and dials.ping_open):
            return None
        action = self._action(request, route)
        if dials.auth == "basic":
            return self._login(request, route, action)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return self._bearer(request, route, action, None)
        verdict = self._tokens.judge(token, route.repository, action)
        if verdict == "denied" and dials.private_status == 403:
            return problem(403, "DENIED", "requested access to the resource is denied")
        return None if verdict == "good" else self._bearer(request, route, action, verdict)

    def missing(self, request: web.BaseRequest, route: Route) -> web.Response:
        """Return the answer for a repository that does not exist."""
        if self._site.dials.missing_repository == 401:
            return self._bearer(request, route, "pull", "denied")
        return not_found(self._site.dials, "NAME_UNKNOWN", f"repository {route.repository} is unknown")

    def user(self, request: web.BaseRequest) -> str:
        """Return who asks, by a token or a password that was found good; empty for nobody."""
        authorization = request.headers.get("Authorization", "")
        pair = credentials(authorization)
        return pair[0] if pair is not None else self._tokens.user(authorization.partition(" ")[2])

    def _action(self, request: web.BaseRequest, route: Route) -> str:
        if request.method not in ("GET", "HEAD") or route.kind == "upload":
            return "push"
        return self._site.dials.tags_scope if route.kind == "tags" else "pull"

    def _login(self, request: web.BaseRequest, route: Route, action: str) -> web.Response | None:
        dials = self._site.dials
        pair = credentials(request.headers.get("Authorization"))
        if pair is None:
            is_open = dials.basic_open and action != "push" and route.repository not in dials.private
            return None if is_open else self._basic()
        if self._logins.user(pair) is not None:
            return self._logins.ban()
        return self._logins.ban() or (self._basic() if dials.wrong_password == 401 else self._logins.refusal())

    def _basic(self) -> web.Response:
        headers = {"WWW-Authenticate": 'Basic realm="registry"'} if self._site.dials.challenge else None
        answer = problem(401, "UNAUTHORIZED", "authentication required", headers)
        answer.headers["Content-Type"] = self._site.dials.basic_type
        return answer

    def _bearer(self, request: web.BaseRequest, route: Route, action: str, verdict: Verdict | None) -> web.Response:
        dials = self._site.dials
        answer = problem(401, "UNAUTHORIZED", "authentication required")
        if not dials.challenge or (verdict == "expired" and not dials.expired_challenge):
            return answer
        origin = self._site.registry_url if dials.challenge_realm == "own" else self._site.auth_url
        realm = origin + dials.realm_path.replace("{repository}", route.repository.partition("/")[0])
        if verdict == "expired" and dials.expired_realm is not None:
            realm = dials.expired_realm
        quote = '"' if dials.challenge_quotes else ""
        parameters = [f'realm="{realm}"']
        if dials.challenge_service is not None:
            parameters.append(f"service={quote}{dials.challenge_service}{quote}")
        named = dials.challenge_scope == "always" or (dials.challenge_scope == "get" and request.method != "HEAD")
        if named and route.repository:
            actions = "pull,push" if action == "push" else action
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
