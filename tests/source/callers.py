"""The mirror as it asks one upstream, credentials that a test hands out, and clocks that it moves."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from mirror import config
from mirror.config import Secret
from mirror.observe.metrics import HubMetrics, new_registry
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source.upstream import Proxies
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.authorization import Authorization
from mirror.source.upstream.connections import Connections
from mirror.source.upstream.credentials import Credential, Credentials
from mirror.source.upstream.daemons import DaemonThreads

HOST = "registry.example"
APP = Repository(HOST, "team/app")

USER, PASSWORD, WRONG = "ann", "right-Secret-1", "mistaken-Secret-2"


def credential(password: str = PASSWORD, username: str = USER, *, is_token: bool = False) -> Credential:
    return Credential(username, Secret(password), is_token)


class Wallet(Credentials):
    """What the mirror has for every upstream: nothing, a credential, or none because it cannot be had."""

    def __init__(self, held: Credential | None = None) -> None:
        super().__init__(DaemonThreads())
        self.held = held
        self.failure = ""
        self.renewed: list[Credential] = []
        """What it has instead, one after the other, once what it has was refused."""
        self.refusals: list[Credential] = []

    async def of(self, upstream: config.Upstream) -> Credential | None:
        if self.failure:
            raise RegistryError(ErrorCode.DENIED, self.failure, failure=Failure.CREDENTIALS)
        return self.held

    def refused(self, upstream: config.Upstream, credential: Credential) -> None:
        self.refusals.append(credential)
        if self.renewed:
            self.held = self.renewed.pop(0)


class Clock:
    """A clock that the test moves ahead; what looks at it believes that the time has passed."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        """Return the seconds of the moved clock."""
        return time.monotonic() + self.ahead


async def until(condition: Callable[[], object]) -> None:
    """Wait for what is about to happen."""
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


@dataclass(frozen=True)
class Caller:
    """The mirror as it asks one upstream, without retries."""

    authorization: Authorization
    upstream: config.Upstream
    wallet: Wallet
    received: list[int]
    """The sizes of the bodies that were read on the way."""

    async def ask(
        self,
        repository: str = APP.name,
        path: str = "manifests/1",
        kind: str = "manifest",
        method: str = "GET",
        base: str = "",
        *,
        is_anonymous: bool = False,
    ) -> int:
        """Return the status of the answer."""
        named = Repository(HOST, repository)
        ask = Ask(self.upstream, named, kind, method, path, ErrorCode.MANIFEST_UNKNOWN, {"Accept": "application/json"})
        answer = await self.authorization.send(ask._replace(base=base, is_anonymous=is_anonymous))
        answer.release()
        return answer.status

    async def refusal(self, repository: str = APP.name) -> RegistryError:
        """Ask for what cannot be had, and return the error."""
        with pytest.raises(RegistryError) as refused:
            await self.ask(repository)
        return refused.value

    async def identity(self) -> str:
        return await self.authorization.identity(self.upstream)


@asynccontextmanager
async def calling(url: str, held: Credential | None = None, ca_file: str = "") -> AsyncIterator[Caller]:
    """Ask the upstream at `url` with a credential."""
    upstream = config.Upstreams({HOST: {"url": url, "ca_file": ca_file}}).lookup(HOST)
    assert upstream is not None
    contexts = {ca_file: ssl.create_default_context(cafile=ca_file)} if ca_file else {}
    connections = Connections(HubMetrics(new_registry()), contexts, Proxies({}))
    wallet, received = Wallet(held), list[int]()
    authorization = Authorization(connections, wallet, lambda _, amount: received.append(amount))
    try:
        yield Caller(authorization, upstream, wallet, received)
    finally:
        await authorization.close()
        await connections.close()
        await wallet.close()
