"""Which server has the fleet's state now. All of its keys have one hash tag, so it is always one server."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from mirror.config import Host, RedisUrl

ROOT = "{layover}:1:"
"""What every key begins with; the number is that of the protocol between replicas."""

CONNECT_SECONDS = 2.0
_SOCKET_SECONDS = 5.0
_MOST_CONNECTIONS = 6
_MOST_NODES = 100
_GRACE_SECONDS = 0.25


class NotFound(Exception):
    """Nobody says which server has the state; the text says why."""


def connect(url: RedisUrl, host: Host, *, has_login: bool = True, database: int = 0) -> Redis:
    """Return a client of one server that tries everything once; it connects when it is used."""
    login: dict[str, Any] = {"username": url.username or None, "password": url.password or None} if has_login else {}
    pool = BlockingConnectionPool(
        max_connections=_MOST_CONNECTIONS,
        timeout=CONNECT_SECONDS,
        connection_class=SSLConnection if url.has_tls else Connection,
        host=host.name,
        port=host.port,
        db=database,
        protocol=2,
        driver_info=None,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=_SOCKET_SECONDS,
        socket_keepalive=True,
        **login,
    )
    return Redis.from_pool(pool)


async def command(client: Redis, *words: str) -> Any:
    """Return what a server answers to one command.

    Raises:
        RedisError: it answers with an error, or not at all.
    """
    execute: Callable[..., Awaitable[Any]] = client.execute_command
    return await execute(*words)


def listener(client: Redis) -> Redis:
    """Return a client of the same server that waits without end."""
    known = client.connection_pool
    kwargs = {**known.connection_kwargs, "socket_timeout": None}
    pool = BlockingConnectionPool(max_connections=1, connection_class=known.connection_class, **kwargs)
    return Redis.from_pool(pool)


class Locator:
    """Finds the server, and remembers the nodes of a Cluster that it heard of."""

    def __init__(self) -> None:
        self._nodes: tuple[Host, ...] = ()

    async def find(self, url: RedisUrl) -> Host:
        """Return where the state is.

        Raises:
            NotFound: no sentinel or node of a Cluster tells.
        """
        if url.form == "single":
            return url.hosts[0]
        if url.form == "sentinel":
            words = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", url.service)
            return self._most(await _ask_all(url, url.hosts, words), lambda _, said: _address(said), "sentinel")
        hosts = tuple(dict.fromkeys((*url.hosts, *self._nodes)))
        answers = await _ask_all(url, hosts, ("CLUSTER", "SLOTS"))
        heard = [node for host, said in answers if isinstance(said, list) for node in _nodes(host, said)]
        self._nodes = tuple(dict.fromkeys(heard))[:_MOST_NODES]
        return self._most(answers, _owner, "node of the Cluster")

    @staticmethod
    def _most(answers: Sequence[tuple[Host, Any]], read: Callable[[Host, Any], Host | None], kind: str) -> Host:
        """Return what most of them say: after a fail-over some may not have heard of it yet."""
        failures = [f"{host} {said}" for host, said in answers if isinstance(said, NotFound)]
        told = Counter(
            found for host, said in answers if not isinstance(said, NotFound) and (found := read(host, said))
        )
        if not told:
            raise NotFound("; ".join(failures) or f"no {kind} knows of a master")
        return told.most_common(1)[0][0]


async def _ask_all(url: RedisUrl, hosts: Sequence[Host], words: Sequence[str]) -> list[tuple[Host, Any]]:
    """Ask all, and wait for those that are slower than the first for a moment only: they may be gone."""
    asking = {host: asyncio.ensure_future(_ask(url, host, words)) for host in hosts}
    try:
        await _first_answer(asking.values())
        await asyncio.wait(asking.values(), timeout=_GRACE_SECONDS)
        return [
            (host, asked.result() if asked.done() else NotFound("does not answer")) for host, asked in asking.items()
        ]
    finally:
        for asked in asking.values():
            asked.cancel()
        await asyncio.gather(*asking.values(), return_exceptions=True)


async def _first_answer(asking: Collection[asyncio.Future[Any]]) -> None:
    """Wait until one of them knows something, or none does."""
    left = set(asking)
    while left:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        if not all(isinstance(each.result(), NotFound) for each in done):
            return


async def _ask(url: RedisUrl, host: Host, words: Sequence[str]) -> Any:
    """Return the answer of one server, or NotFound. Sentinels often have no password of their own: that is tried."""
    logins = (False, True) if url.form == "sentinel" else (True,)
    failure = NotFound("does not answer")
    for has_login in logins:
        client = connect(url, host, has_login=has_login)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await command(client, *words)
        except (AuthenticationError, NoPermissionError):
            failure = NotFound("refuses the user or the password")
        except (RedisError, OSError, TimeoutError) as error:
            return NotFound("does not answer" if isinstance(error, TimeoutError) else reason_of(error))
        finally:
            with contextlib.suppress(RedisError, OSError):
                await client.aclose()
    return failure


def reason_of(error: BaseException) -> str:
    """Return why a connection failed, in words that hold no secret."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    for each in causes:
        if isinstance(each, ssl.SSLError):
            said = getattr(each, "verify_message", "") or each.reason or "the handshake failed"
            return f"cannot be talked to by TLS: {said}"
        if isinstance(each, ConnectionRefusedError):
            return "refuses connections"
        if isinstance(each, TimeoutError | asyncio.TimeoutError):
            return "does not answer"
    for each in causes:
        if isinstance(each, OSError) and each.strerror:
            return f"cannot be reached: {each.strerror}"
    return "ended the connection"


def _address(said: Any) -> Host | None:
    return Host(_text(said[0]), int(said[1])) if isinstance(said, list) and len(said) == 2 else None


def _owner(asked: Host, said: Any) -> Host | None:
    slot = key_slot(ROOT.encode())
    for first, last, master, *_ in said:
        if int(first) <= slot <= int(last):
            return Host(_text(master[0]) or asked.name, int(master[1]))
    return None


def _nodes(asked: Host, said: Any) -> list[Host]:
    return [Host(_text(node[0]) or asked.name, int(node[1])) for _, _, *nodes in said for node in nodes]


def _text(raw: object) -> str:
    text = raw.decode() if isinstance(raw, bytes) else str(raw or "")
    return "" if text == "?" else text
