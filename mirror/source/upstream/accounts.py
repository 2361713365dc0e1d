"""How the mirror's credentials fare, so that those that are refused are not sent again and again.

GitLab shuts an address out for an hour after 30 failed logins within 3 minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import structlog

from mirror.config import Upstream
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source.upstream import failures
from mirror.source.upstream.credentials import Credential
from mirror.source.upstream.expiring import Expiring

# A little less than a minute: who waits for the end of a refusal has a pace of their own.
_REFUSED_SECONDS = 50.0
_CLOSED_SECONDS = 5.0
_TRUSTED_SECONDS = 3600.0
_LONGEST_WAIT = 9.0
_AT_ONCE = 12
_MOST_IN_A_ROW = 3
_MOST_REPOSITORIES = 1000
_MOST_ACCOUNTS = 1000
_TOLD_SECONDS = 86400.0


class CredentialsRefused(RegistryError):
    """The mirror's credentials do not open what was asked for; an anonymous caller may have it all the same.

    `is_whole` if they open nothing at all.
    """

    def __init__(self, message: str, *, is_whole: bool = False, is_remembered: bool = False) -> None:
        super().__init__(ErrorCode.DENIED, message, failure=Failure.CREDENTIALS, is_remembered=is_remembered)
        self.is_whole = is_whole


class Account:
    """One credential at one upstream.

    Some registries refuse good credentials where a repository is missing or closed (GHCR), with the same answer that
    others have for bad ones. So where it is not known to be good, or is refused several times in a row, a refused
    credential is tried on its own, as `docker login` does.
    """

    def __init__(self, upstream: Upstream, username: str) -> None:
        self._upstream = upstream
        self._username = username
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._first = asyncio.Lock()
        self._trusted_until = float("-inf")
        self._refused_until = float("-inf")
        self._closed: Expiring[Repository, None] = Expiring(_CLOSED_SECONDS, _MOST_REPOSITORIES)
        self._in_a_row = 0
        self._is_doubted = False

    @property
    def is_refused(self) -> bool:
        """Whether the credential opened nothing when it was last sent, which was just now."""
        return self._refused_until > time.monotonic()

    @property
    def is_trusted(self) -> bool:
        """Whether the credential was good when it was last sent, which is not long ago."""
        return self._trusted_until > time.monotonic() and not self._is_doubted

    @contextlib.asynccontextmanager
    async def login(self, repository: Repository) -> AsyncIterator[None]:
        """Let one login happen: one at a time until one was accepted, then a few at once.

        Raises:
            CredentialsRefused: the credential was refused a moment ago.
            RegistryError: those before took too long.
        """
        async with contextlib.AsyncExitStack() as turn:
            alone = await turn.enter_async_context(contextlib.AsyncExitStack())
            try:
                async with asyncio.timeout(_LONGEST_WAIT):
                    await turn.enter_async_context(self._turns)
                    if not self.is_trusted:
                        await alone.enter_async_context(self._first)
            except TimeoutError:
                raise failures.crowded(self._upstream) from None
            if self.is_trusted:
                await alone.aclose()
            if self.is_refused or repository in self._closed:
                raise self.error(repository, is_remembered=True)
            yield

    def accept(self) -> None:
        """Note that the credential was good."""
        self._trusted_until = time.monotonic() + _TRUSTED_SECONDS
        self._refused_until = float("-inf")
        self._in_a_row = 0

    def close(self, repository: Repository) -> None:
        """Note that a repository stays closed to the credential, good as it may be."""
        self._closed.put(repository, None)

    def refuse(self, repository: Repository) -> bool:
        """Note that the credential was refused for a repository; return whether it is to be tried on its own now."""
        self.close(repository)
        self._in_a_row += 1
        if self._is_doubted or (self.is_trusted and self._in_a_row < _MOST_IN_A_ROW):
            return False
        self._in_a_row = 0
        self._is_doubted = True
        return True

    def tried(self, *, is_good: bool | None) -> None:
        """Note what became of a credential that was tried on its own; None if that could not be found out."""
        self._is_doubted = False
        if is_good:
            self.accept()
        elif is_good is False or not self.is_trusted:
            self._refused_until = time.monotonic() + _REFUSED_SECONDS
            self._trusted_until = float("-inf")

    def error(self, repository: Repository, *, is_remembered: bool = False) -> CredentialsRefused:
        """Return the error that says what the credential does not open."""
        name, user = self._upstream.name, f"user {self._username}" if self._username else "a token"
        if self.is_refused:
            text = f"upstream {name} rejects the mirror's credentials ({user})"
            return CredentialsRefused(text, is_whole=True, is_remembered=is_remembered)
        text = f"upstream {name} gives the mirror's credentials ({user}) no access to {repository.name}"
        return CredentialsRefused(text, is_remembered=is_remembered)


class Accounts:
    """The accounts of all upstreams."""

    def __init__(self) -> None:
        self._accounts: Expiring[tuple[str, str], Account] = Expiring(_TRUSTED_SECONDS, _MOST_ACCOUNTS)
        self._told: Expiring[str, None] = Expiring(_TOLD_SECONDS, _MOST_ACCOUNTS)
        self._log = structlog.get_logger("layover.credentials")

    def of(self, upstream: Upstream, credential: Credential) -> Account:
        """Return the account of a credential."""
        key = (upstream.url, credential.fingerprint)
        account = self._accounts.get(key) or Account(upstream, credential.username)
        self._accounts.put(key, account)
        return account

    def accepted(self, upstream: Upstream) -> None:
        """Say once that an upstream's credentials are good again."""
        if upstream.url in self._told:
            self._told.drop(upstream.url)
            self._log.info("credentials are accepted again", upstream=upstream.name)

    def refused(self, upstream: Upstream, error: CredentialsRefused) -> None:
        """Say once that an upstream's credentials open nothing any more."""
        if error.is_whole and upstream.url not in self._told:
            self._told.put(upstream.url, None)
            self._log.warning("credentials are rejected", upstream=upstream.name, error=error.message)
