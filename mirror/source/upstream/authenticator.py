"""The way to an answer for one caller: with what is held, what is known, or what the registry asks for when it is cold.

Credentials go to the registry itself (Basic), or to the realm that it named in answer to a request that came cold: not
to what the answer to an old token names, nor to where a redirect led. The realm may be anywhere, and may move, as those
of Docker Hub and GitLab may: whoever speaks for the registry could as well ask for the password itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import aiohttp

from mirror.config import Upstream
from mirror.oci.errors import Failure, RegistryError
from mirror.source.upstream.accounts import Accounts, CredentialsRefused
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.challenge import Challenge, bearer, usable
from mirror.source.upstream.challenges import Challenges, Objection
from mirror.source.upstream.connections import Connections
from mirror.source.upstream.credentials import Credential
from mirror.source.upstream.expiring import Expiring
from mirror.source.upstream.logins import Logins, is_own

_PING_SECONDS = 60.0
_MOST_PINGS = 1000
_PUBLIC_SECONDS = 3600.0
_MOST_PUBLIC = 10_000


class Authenticator:
    """Sends requests, and meets the challenges on the way."""

    def __init__(self, connections: Connections, accounts: Accounts, received: Callable[[Upstream, int], None]) -> None:
        """Send over `connections`; `received` counts the bytes of bodies."""
        self._accounts = accounts
        self._challenges = Challenges()
        self._logins = Logins(connections, self._challenges, accounts, received)
        self._pings: Expiring[str, tuple[Challenge | None]] = Expiring(_PING_SECONDS, _MOST_PINGS)
        self._public: Expiring[tuple[str, str], None] = Expiring(_PUBLIC_SECONDS, _MOST_PUBLIC)

    async def close(self) -> None:
        """End every request under way."""
        await self._logins.close()

    async def send(self, ask: Ask, credential: Credential | None) -> aiohttp.ClientResponse:
        """Return the open answer, of any status.

        Raises:
            CredentialsRefused: the credential does not open it.
            RegistryError: an exchange failed, or no token was to be had.
        """
        answer = await self._send(ask, credential)
        if credential is None and answer.status < 300:
            self._public.put((ask.endpoint, ask.repository.name), None)
        return answer

    def is_public(self, ask: Ask) -> bool:
        """Say whether the repository let somebody in who did not say who it is, not long ago."""
        return (ask.endpoint, ask.repository.name) in self._public

    async def _send(self, ask: Ask, credential: Credential | None) -> aiohttp.ClientResponse:
        known = self._challenges.get(ask)
        token = self._logins.held(ask, credential)
        if token is not None:
            answer = await self._logins.send(ask, f"Bearer {token}")
            if not (is_own(ask, answer) and answer.status in {401, 403}):
                return answer
            answer.release()
            if self._objection(ask, answer) is Objection.ACTIONS:
                known = None
            else:
                self._logins.drop(ask, credential, token)
        met = None if known is None else await self._meet_again(ask, known, credential)
        return await self._send_cold(ask, credential) if met is None else met

    async def _meet_again(
        self, ask: Ask, known: Challenge, credential: Credential | None
    ) -> aiohttp.ClientResponse | None:
        """Return the answer to a request that meets a challenge before it is made; None if it may be another now."""
        if known.scheme == "basic" and credential is None:
            return None
        is_sure = self._challenges.is_new(ask)
        try:
            answer = await self._meet(ask, known, credential)
        except RegistryError as error:
            if not error.is_remembered:
                self._challenges.forget(ask)
            if is_sure or isinstance(error, CredentialsRefused) or error.failure is not Failure.CREDENTIALS:
                raise
            return None
        objection = self._objection(ask, answer)
        if objection in {None, Objection.REPOSITORY} or (is_sure and objection is Objection.TOKEN):
            return self._judged(ask, credential, answer)
        answer.release()
        self._challenges.forget(ask)
        return None

    async def _send_cold(self, ask: Ask, credential: Credential | None) -> aiohttp.ClientResponse:
        """Return the answer to a request without authorization, or to another that meets the challenge to it."""
        answer = await self._logins.send(ask, None)
        if answer.status < 300:
            self._public.put((ask.endpoint, ask.repository.name), None)
        if not is_own(ask, answer):
            return answer
        challenge = _challenge(answer)
        # Some say what they want on their front page alone, to those who log in before they ask for anything.
        if challenge is None and (answer.status == 401 or (credential is not None and answer.status in {403, 404})):
            challenge, answer = await self._front_challenge(ask, answer)
        if challenge is None or (challenge.scheme == "basic" and credential is None):
            return answer
        answer.release()
        self._challenges.learn(ask, challenge)
        return self._judged(ask, credential, await self._meet(ask, challenge, credential))

    async def _front_challenge(
        self, ask: Ask, answer: aiohttp.ClientResponse
    ) -> tuple[Challenge | None, aiohttp.ClientResponse]:
        """Return the challenge of the registry's front page, and `answer` or, if its turn is over, the same anew."""
        known = self._pings.get(ask.endpoint)
        if known is None:
            answer.release()
            found = None
            with contextlib.suppress(RegistryError):
                front = await self._logins.ping(ask)
                front.release()
                found = _challenge(front) if is_own(ask, front) else None
            # What it says of scopes is not for this repository.
            known = (None if found is None else found.without_scope(),)
            self._pings.put(ask.endpoint, known)
            if known[0] is None:
                answer = await self._logins.send(ask, None)
        return known[0], answer

    async def _meet(self, ask: Ask, challenge: Challenge, credential: Credential | None) -> aiohttp.ClientResponse:
        """Return the answer to a request that meets a challenge."""
        if challenge.scheme == "basic" and credential is not None:
            return await self._logins.log_in(ask, credential)
        token = await self._logins.token(ask, challenge, credential)
        answer = await self._logins.send(ask, f"Bearer {token}")
        if self._objection(ask, answer) is Objection.TOKEN:
            # Docker Hub is known to refuse a token that is brand-new.
            answer.release()
            answer = await self._logins.send(ask, f"Bearer {token}")
        if self._objection(ask, answer) in {Objection.TOKEN, Objection.REPOSITORY}:
            self._logins.drop(ask, credential, token)
        return answer

    def _objection(self, ask: Ask, answer: aiohttp.ClientResponse) -> Objection | None:
        """Return what a registry has against a token; None if nothing, or it does not say so by 401."""
        if not is_own(ask, answer) or answer.status != 401:
            return None
        return self._challenges.objection(ask, bearer(answer.headers.getall("WWW-Authenticate", [])))

    def _judged(
        self, ask: Ask, credential: Credential | None, answer: aiohttp.ClientResponse
    ) -> aiohttp.ClientResponse:
        """Return an answer, unless it is no use to have a good credential there."""
        if credential is None or not is_own(ask, answer) or answer.status != 401:
            return answer
        answer.release()
        account = self._accounts.of(ask.upstream, credential)
        account.close(ask.repository)
        raise account.error(ask.repository)


def _challenge(answer: aiohttp.ClientResponse) -> Challenge | None:
    return usable(answer.headers.getall("WWW-Authenticate", [])) if answer.status == 401 else None
