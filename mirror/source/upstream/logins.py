"""Requests as somebody: with a token that a realm gave, or with a name and a password."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import aiohttp
from yarl import URL

from mirror.config import Upstream
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.source.upstream.accounts import Account, Accounts
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.challenge import Challenge, bearer
from mirror.source.upstream.challenges import Challenges
from mirror.source.upstream.connections import Connections
from mirror.source.upstream.credentials import Credential
from mirror.source.upstream.realm import Realm, TokenRefused, basic_authorization
from mirror.source.upstream.redirects import follow
from mirror.source.upstream.tokens import Scope, Tokens


class Logins:
    """Gets tokens and sends requests, and keeps account of how the mirror's credentials fare."""

    def __init__(
        self,
        connections: Connections,
        challenges: Challenges,
        accounts: Accounts,
        received: Callable[[Upstream, int], None],
    ) -> None:
        """Send over `connections`; `received` counts the bytes of bodies."""
        self._connections = connections
        self._challenges = challenges
        self._accounts = accounts
        self._realm = Realm(connections, received)
        self._tokens = Tokens()

    async def close(self) -> None:
        """End every request under way."""
        await self._tokens.close()

    def held(self, ask: Ask, credential: Credential | None) -> str | None:
        """Return the token that is held for such a request."""
        return self._tokens.get(self._scope(ask, credential))

    def drop(self, ask: Ask, credential: Credential | None, token: str) -> None:
        """Forget a token that was refused."""
        self._tokens.drop(self._scope(ask, credential), token)

    async def token(self, ask: Ask, challenge: Challenge, credential: Credential | None) -> str:
        """Return a token from the realm of the registry's challenge.

        Raises:
            CredentialsRefused: the credential gets none.
            RegistryError: the realm failed, or gives none to anybody.
        """
        # Whoever asked at the same time may have it.
        scope = self._scope(ask, credential)
        return self._tokens.get(scope) or await self._new_token(ask, scope, challenge, credential, ask.url)

    async def send(self, ask: Ask, authorization: str | None) -> aiohttp.ClientResponse:
        """Return the open answer, of any status; `authorization` goes to the registry's own origin alone.

        Where a redirect leads to another registry, that one is answered as nobody.

        Raises:
            RegistryError: an exchange failed.
        """
        own = ask.url.origin()

        def authorize(origin: URL) -> str | None:
            return authorization if origin == own else _bearer(self._tokens.get(_foreign(ask, origin)))

        answer = await follow(self._connections, ask, ask.url, authorize)
        there = answer.url.origin()
        challenge = bearer(answer.headers.getall("WWW-Authenticate", [])) if answer.status == 401 else None
        if challenge is None or there == own:
            return answer
        answer.release()
        stale = self._tokens.get(_foreign(ask, there))
        if stale is not None:
            self._tokens.drop(_foreign(ask, there), stale)
        await self._new_token(ask, _foreign(ask, there), challenge, None, answer.url)
        return await follow(self._connections, ask, ask.url, authorize)

    async def log_in(self, ask: Ask, credential: Credential) -> aiohttp.ClientResponse:
        """Return the open answer of a registry that is told name and password with each request (Basic).

        Raises:
            CredentialsRefused: it refuses them.
            RegistryError: an exchange failed.
        """
        account = self._accounts.of(ask.upstream, credential)
        authorization = basic_authorization(credential)
        async with account.login(ask.repository):
            answer = await self.send(ask, authorization)
            if is_own(ask, answer) and answer.status in {401, 403}:
                answer.release()
                if account.refuse(ask.repository):
                    await _try(account, self._opens_front_page(ask, authorization))
                raise account.error(ask.repository)
            if not is_own(ask, answer) or answer.status < 400 or answer.status in {404, 416}:
                account.accept()
                self._accounts.accepted(ask.upstream)
        return answer

    async def ping(self, ask: Ask, authorization: str | None = None) -> aiohttp.ClientResponse:
        """Return the open answer of the registry's front page, `/v2/`.

        Raises:
            RegistryError: an exchange failed.
        """
        own = ask.url.origin()
        asked = ask._replace(kind="other", method="GET", headers={})
        url = URL(f"{ask.endpoint}/v2/", encoded=True)
        return await follow(self._connections, asked, url, lambda each: authorization if each == own else None)

    def _scope(self, ask: Ask, credential: Credential | None) -> Scope:
        fingerprint = "" if credential is None else credential.fingerprint
        return Scope(ask.endpoint, ask.repository.name, fingerprint, self._challenges.actions(ask))

    async def _new_token(
        self, ask: Ask, scope: Scope, challenge: Challenge, credential: Credential | None, challenged_by: URL
    ) -> str:
        token = await self._tokens.ask(
            scope, ask.step, lambda step: self._grant(ask._replace(step=step), challenge, credential, challenged_by)
        )
        if token is None:
            text = f"upstream {ask.upstream.name} denies the mirror access: it gives no token that can be used"
            raise RegistryError(ErrorCode.DENIED, text, failure=Failure.CREDENTIALS)
        return token

    async def _grant(self, ask: Ask, challenge: Challenge, credential: Credential | None, challenged_by: URL) -> bytes:
        """Return the realm's answer with a token."""
        scopes = self._challenges.scopes(ask, challenge)
        if credential is None:
            return await self._realm.ask(ask, challenge, scopes, None, challenged_by)
        account = self._accounts.of(ask.upstream, credential)
        async with account.login(ask.repository):
            try:
                content = await self._realm.ask(ask, challenge, scopes, credential, challenged_by)
            except TokenRefused:
                if account.refuse(ask.repository):
                    await _try(account, self._gets_token(ask, challenge, credential))
                raise account.error(ask.repository) from None
            account.accept()
            self._accounts.accepted(ask.upstream)
            return content

    async def _gets_token(self, ask: Ask, challenge: Challenge, credential: Credential) -> bool | None:
        """Say whether a credential gets a token for no repository at all; None if that cannot be told."""
        try:
            await self._realm.ask(ask, challenge, (), credential, ask.url)
        except TokenRefused:
            return False
        except RegistryError:
            return None
        return True

    async def _opens_front_page(self, ask: Ask, authorization: str) -> bool | None:
        """Say whether a name and a password open a front page that is closed to others; None if that cannot be told."""
        try:
            status = await self._ping_status(ask, authorization)
            if status in {401, 403}:
                return False
            return True if status < 400 and await self._ping_status(ask, None) == 401 else None
        except RegistryError:
            return None

    async def _ping_status(self, ask: Ask, authorization: str | None) -> int:
        answer = await self.ping(ask, authorization)
        answer.release()
        return answer.status if is_own(ask, answer) else 0


async def _try(account: Account, trial: Awaitable[bool | None]) -> None:
    is_good = None
    try:
        is_good = await trial
    finally:
        account.tried(is_good=is_good)


def is_own(ask: Ask, answer: aiohttp.ClientResponse) -> bool:
    """Say whether an answer is the registry's own, and not of where it led."""
    return answer.url.origin() == ask.url.origin()


def _foreign(ask: Ask, origin: URL) -> Scope:
    return Scope(str(origin), ask.repository.name)


def _bearer(token: str | None) -> str | None:
    return None if token is None else f"Bearer {token}"
