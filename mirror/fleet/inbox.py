"""What Redis calls out: words to this replica, and hints that something changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from mirror.fleet.link import Link
from mirror.fleet.locating import ROOT, listener, reason_of

_LOOK_SECONDS = 0.1


class Inbox:
    """Listens as long as the link is up. What is called meanwhile is lost: hints are made good by the next beat."""

    def __init__(self, link: Link, identity: Callable[[], str], told: Callable[[bytes], None]) -> None:
        """Call `told` with each word, and with b"b" whenever it begins to listen."""
        self._link = link
        self._identity = identity
        self._told = told

    async def listen_for_ever(self) -> None:
        """Listen, on one connection after the other."""
        while True:
            if self._link.is_up and self._link.client is not None:
                listening = asyncio.ensure_future(self._listen(self._link.client))
                lost = asyncio.ensure_future(self._link.lost.wait())
                try:
                    await asyncio.wait((listening, lost), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for work in (listening, lost):
                        work.cancel()
                    await asyncio.gather(listening, lost, return_exceptions=True)
                self._judge(listening)
            await asyncio.sleep(_LOOK_SECONDS)

    def _judge(self, listening: asyncio.Future[None]) -> None:
        """Count an end of the connection as an absence: another server may answer there now, which knows less."""
        error = None if listening.cancelled() else listening.exception()
        if isinstance(error, RedisConnectionError | OSError):
            self._link.lose(reason_of(error))

    async def _listen(self, beside: Redis) -> None:
        """Listen on a connection of its own, as long as that lasts."""
        async with listener(beside) as client, client.pubsub() as calls:
            await calls.subscribe(f"{ROOT}all", f"{ROOT}in:{self._identity()}")
            while True:
                message = await calls.get_message(timeout=None)
                data = message["data"] if message else None
                self._told(data if isinstance(data, bytes) else b"b")
