"""Token realms: asked for tokens, with the mirror's credentials or without."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from mirror.config import Upstream
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.source.upstream import body, failures
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.challenge import Challenge
from mirror.source.upstream.connections import Connections
from mirror.source.upstream.credentials import Credential
from mirror.source.upstream.expiring import Expiring
from mirror.source.upstream.redirects import follow

_SECONDS = 9.0
_LONGEST_ANSWER = 2**20
_CLIENT = "layover"
# How servers answer a POST that they do not know.
_NO_POST = frozenset({400, 401, 404, 405})
_REMEMBERED_SECONDS = 3600.0
_MOST_REMEMBERED = 1000
# The user name that goes with a refresh token where it is sent as a password (ACR), and what Docker's helpers say.
_BEARER = "00000000-0000-0000-0000-000000000000"
_NO_NAMES = frozenset({"", "<token>"})


class TokenRefused(RegistryError):
    """A realm that gives no token to whoever asks as the mirror does."""


class Realm:
    """Asks for tokens. What goes along with a request goes to the realm's own origin alone."""

    def __init__(self, connections: Connections, received: Callable[[Upstream, int], None]) -> None:
        """Ask over `connections`; `received` counts the bytes of bodies."""
        self._connections = connections
        self._received = received
        self._without_post: Expiring[str, None] = Expiring(_REMEMBERED_SECONDS, _MOST_REMEMBERED)

    async def ask(
        self, ask: Ask, challenge: Challenge, scopes: Sequence[str], credential: Credential | None, challenged_by: URL
    ) -> bytes:
        """Return the answer with a token for `scopes`; `challenged_by` is the URL whose answer named the realm.

        Raises:
            TokenRefused: the realm refuses the credential, or anonymous callers.
            RegistryError: the realm is none, may not be asked, or failed.
        """
        realm = _address(ask.upstream, challenge, challenged_by)
        async with failures.time_limit(ask.upstream, realm, _SECONDS):
            return await self._ask(ask, realm, challenge.parameters.get("service", ""), scopes, credential)

    async def _ask(
        self, ask: Ask, realm: URL, service: str, scopes: Sequence[str], credential: Credential | None
    ) -> bytes:
        trades = credential is not None and credential.is_token and str(realm) not in self._without_post
        if trades and credential is not None:
            answer = await self._trade(ask, realm, service, scopes, credential)
            if answer.status not in _NO_POST:
                return await self._content(ask, answer)
            answer.close()
        content = await self._content(ask, await self._get(ask, realm, service, scopes, credential))
        if trades:
            self._without_post.put(str(realm), None)
        return content

    async def _get(
        self, ask: Ask, realm: URL, service: str, scopes: Sequence[str], credential: Credential | None
    ) -> aiohttp.ClientResponse:
        fields = [("service", service)] if service else []
        query = urlencode([*fields, *(("scope", scope) for scope in scopes)], errors="replace")
        url = URL(f"{realm}{'&' if '?' in str(realm) else '?'}{query}", encoded=True)
        basic = None if credential is None else basic_authorization(credential)
        asked = ask._replace(kind="token", method="GET", headers={})
        own = realm.origin()
        answer = await follow(self._connections, asked, url, lambda origin: basic if origin == own else None)
        if credential is not None and answer.url.origin() != own:
            answer.close()
            raise failures.bad_redirect(ask.upstream, "redirects whoever asks it for a token")
        return answer

    async def _trade(
        self, ask: Ask, realm: URL, service: str, scopes: Sequence[str], credential: Credential
    ) -> aiohttp.ClientResponse:
        fields = {
            "grant_type": "refresh_token",
            "service": service,
            "client_id": _CLIENT,
            "scope": " ".join(scopes),
            "refresh_token": credential.secret,
        }
        asked = ask._replace(kind="token", method="POST", headers={})
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return await self._connections.send(asked, realm, headers, urlencode(fields, errors="replace").encode())

    async def _content(self, ask: Ask, answer: aiohttp.ClientResponse) -> bytes:
        if answer.status == 200:
            content = await body.read(answer, ask._replace(kind="token"), _LONGEST_ANSWER)
            self._received(ask.upstream, len(content))
            return content
        status = answer.status
        answer.close()
        if 400 <= status < 500 and status not in {408, 425, 429}:
            # It speaks of the mirror, not of the image.
            kind = TokenRefused if status in {401, 403} else RegistryError
            text = f"upstream {ask.upstream.name} denies the mirror access: it gives no token (status {status})"
            raise kind(ErrorCode.DENIED, text, failure=Failure.CREDENTIALS)
        raise failures.refusal(ask.upstream, status, answer.headers, b"", ErrorCode.DENIED, answer.url.authority)


def basic_authorization(credential: Credential) -> str:
    """Return the Authorization header's value that tells a name and a secret (RFC 7617)."""
    username = _BEARER if credential.is_token and credential.username in _NO_NAMES else credential.username
    return f"Basic {base64.b64encode(f'{username}:{credential.secret}'.encode()).decode()}"


def _address(upstream: Upstream, challenge: Challenge, challenged_by: URL) -> URL:
    text = challenge.parameters.get("realm", "")
    is_address = text.isascii() and text.isprintable() and " " not in text
    try:
        target = URL(text if is_address else "", encoded=True)
        _ = target.port  # yarl looks only when it is asked
        is_address = target.scheme in {"http", "https"} and target.host is not None
    except ValueError:
        target, is_address = URL(), False
    if not is_address or "@" in target.raw_authority or (challenged_by.scheme, target.scheme) == ("https", "http"):
        text = f"upstream {upstream.name} names a token realm that is not https"
        raise RegistryError(ErrorCode.DENIED, text, failure=Failure.CREDENTIALS)
    return target
