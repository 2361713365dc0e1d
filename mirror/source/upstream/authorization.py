"""As whom an upstream is asked: with the mirror's credentials, or as nobody where they are missing or refused."""

from __future__ import annotations

from collections.abc import Callable

import aiohttp

from mirror.config import Upstream
from mirror.oci.errors import Failure, RegistryError
from mirror.source.upstream.accounts import Accounts, CredentialsRefused
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.authenticator import Authenticator
from mirror.source.upstream.connections import Connections
from mirror.source.upstream.credentials import Credential, Credentials


class Authorization:
    """Sends requests as whoever is let in."""

    def __init__(
        self, connections: Connections, credentials: Credentials, received: Callable[[Upstream, int], None]
    ) -> None:
        """Send over `connections`, with `credentials` where they are asked for; `received` counts bytes of bodies."""
        self._credentials = credentials
        self._accounts = Accounts()
        self._authenticator = Authenticator(connections, self._accounts, received)

    async def close(self) -> None:
        """End every request under way."""
        await self._authenticator.close()

    async def identity(self, upstream: Upstream) -> str:
        """Return the short name of who asks by now, nothing for nobody or one who is rejected."""
        try:
            credential = await self._credential(upstream)
        except CredentialsRefused:
            return ""
        if credential is None or self._accounts.of(upstream, credential).is_refused:
            return ""
        return credential.identity

    async def send(self, ask: Ask) -> aiohttp.ClientResponse:
        """Return the open answer, of any status.

        Raises:
            RegistryError: an exchange failed, no token was to be had, or what was asked for takes credentials and those
                of the mirror are refused.
        """
        refused = None
        if not (ask.is_anonymous or ask.base):
            try:
                answer = await self._send_identified(ask)
            except CredentialsRefused as error:
                refused = error
                self._accounts.refused(ask.upstream, error)
            else:
                if answer is not None:
                    return answer
        return await self._send_anonymously(ask, refused)

    async def _send_identified(self, ask: Ask) -> aiohttp.ClientResponse | None:
        """Return the answer to the mirror's credentials; None if there are none."""
        credential = await self._credential(ask.upstream)
        if credential is None:
            return None
        try:
            return await self._authenticator.send(ask, credential)
        except CredentialsRefused as error:
            if error.is_remembered:
                raise
            refused = error
        # What was lent for a while may be over before its time.
        self._credentials.refused(ask.upstream, credential)
        renewed = await self._credential(ask.upstream)
        if renewed is None or renewed.fingerprint == credential.fingerprint:
            raise refused
        return await self._authenticator.send(ask, renewed)

    async def _send_anonymously(self, ask: Ask, refused: CredentialsRefused | None) -> aiohttp.ClientResponse:
        """Return the answer to anybody, unless it takes credentials, which were `refused`."""
        try:
            answer = await self._authenticator.send(ask, None)
        except RegistryError as error:
            if refused is not None and error.failure is Failure.CREDENTIALS:
                refused.is_remembered = error.is_remembered
                raise refused from None
            raise
        # Some registries hide what is private: their 404 is believed of a repository that is known to be public.
        is_closed = answer.status in {401, 403} or (answer.status == 404 and not self._authenticator.is_public(ask))
        if refused is not None and is_closed:
            answer.release()
            refused.is_remembered = False
            raise refused
        return answer

    async def _credential(self, upstream: Upstream) -> Credential | None:
        try:
            return await self._credentials.of(upstream)
        except RegistryError as error:
            raise CredentialsRefused(error.message) from None
