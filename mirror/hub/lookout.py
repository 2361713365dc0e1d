"""Outages are looked after until they end: an upstream that fails is asked on the quiet, now and then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic

import structlog

from mirror.config import Upstream
from mirror.hub.outages import Name, Outage
from mirror.oci.errors import Failure, RegistryError
from mirror.oci.reference import Repository

_TICK_SECONDS = 0.5


class Lookout(Generic[Name]):
    """The outages of all upstreams, as those see them who ask for what has a `Name`."""

    def __init__(
        self,
        probe: Callable[[Upstream, Repository, Name], Awaitable[None]],
        identity: Callable[[Upstream], Awaitable[str]],
    ) -> None:
        """Have `probe` ask for what clients met an outage with; it reports what came of it by `answered` or `failed`.

        `identity` tells as whom an upstream is asked, as a text that changes with the credentials.
        """
        self._probe = probe
        self._identity = identity
        self._outages: dict[Upstream, Outage[Name]] = {}
        self._probers: dict[Upstream, asyncio.Task[None]] = {}
        self._log = structlog.get_logger("layover.hub")

    async def close(self) -> None:
        """Stop asking."""
        probers = list(self._probers.values())
        for prober in probers:
            prober.cancel()
        if probers:
            await asyncio.wait(probers)

    def met(self, upstream: Upstream, repository: Repository, name: Name) -> Failure | None:
        """Return why something cannot be asked for now, None if it can; a client is about to be answered."""
        outage = self._outages.get(upstream)
        return None if outage is None else outage.met(repository, name, time.monotonic())

    def answered(self, upstream: Upstream, repository: Repository) -> None:
        """Note that an upstream gave a usable answer about a repository."""
        outage = self._outages.get(upstream)
        if outage is not None:
            outage.answered(repository)

    async def failed(
        self, upstream: Upstream, repository: Repository, name: Name, error: RegistryError, *, is_local: bool = False
    ) -> None:
        """Note that asking for something that is held failed; `is_local` if others may be asked for all the same."""
        identity = await self._identity(upstream) if error.failure is Failure.CREDENTIALS else ""
        outage = self._outages.setdefault(upstream, Outage())
        outage.began(repository, name, error, time.monotonic(), identity=identity, is_local=is_local)
        if upstream not in self._probers:
            prober = self._probers[upstream] = asyncio.create_task(self._look_for_end(upstream, outage))
            prober.add_done_callback(lambda _: self._probers.pop(upstream))

    async def _look_for_end(self, upstream: Upstream, outage: Outage[Name]) -> None:
        while not outage.is_over:
            await asyncio.sleep(_TICK_SECONDS)
            identity = await self._identity(upstream) if outage.depends_on_credentials else ""
            due = outage.due(time.monotonic(), identity)
            probes = [self._probe(upstream, repository, name) for repository, name in due]
            for (repository, _), ended in zip(due, await asyncio.gather(*probes, return_exceptions=True), strict=True):
                if ended is not None:
                    # A defect or a full disk is no outage: the next pull shall meet it, and say so.
                    self._log.error("asking after an outage broke down", upstream=upstream.name, error=repr(ended))
                    outage.answered(repository)
        del self._outages[upstream]
