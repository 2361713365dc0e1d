"""What is held is checked with its upstream: once for all who ask, with patience, and on the quiet in an outage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic

import structlog

from mirror.config import Upstream
from mirror.fleet import allowance
from mirror.hub.flights import Flights, Result
from mirror.hub.outages import Name, Outage
from mirror.hub.patience import Patience
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository

_TICK_SECONDS = 0.5


class Lookout(Generic[Name, Result]):
    """The checks and the outages of all upstreams, as those see them who ask for what has a `Name`, such as a tag."""

    def __init__(
        self,
        check: Callable[[Upstream, Repository, Name, Patience, bool], Coroutine[Any, Any, Result]],
        identity: Callable[[Upstream], Awaitable[str]],
        seconds: float,
    ) -> None:
        """Wait for checks while something moves forward within `seconds`.

        `check` asks about what is held under a name, tells the patience of each step, and reports by `answered` or
        `failed` how it went; its last argument says whether it is a probe, which nobody waits for.
        `identity` tells as whom an upstream is asked, as a text that changes with the account.
        """
        self._check = check
        self._identity = identity
        self._seconds = seconds
        self._flights: Flights[Result] = Flights()
        self._patience: dict[tuple[Repository, Name], Patience] = {}
        self._outages: dict[Upstream, Outage[Name]] = {}
        self._probers: dict[Upstream, asyncio.Task[None]] = {}
        self._log = structlog.get_logger("layover.hub")

    async def close(self) -> None:
        """End every request under way."""
        probers = list(self._probers.values())
        for prober in probers:
            prober.cancel()
        if probers:
            await asyncio.wait(probers)
        await self._flights.close()

    def bring(
        self, repository: Repository, name: Name, start: Callable[[], Coroutine[Any, Any, Result]]
    ) -> tuple[asyncio.Future[Result], bool]:
        """Return a future of what `start` brings, and whether another who asked for the same had begun it."""
        return self._flights.join((repository, name), start)

    def leave(self, is_meant: Callable[[str], bool]) -> None:
        """Let what is under way for some repositories go on alone: whoever asks next has it begun anew."""
        self._flights.leave_all(lambda key: is_meant(str(key[0])))

    async def ask(self, upstream: Upstream, repository: Repository, name: Name) -> tuple[Result, bool]:
        """Return what a check finds, for as long as it seems to come, and whether another had begun it.

        Raises:
            RegistryError: the check did; with `Failure.TIMEOUT` once nothing moves forward.
        """
        flight, joined, patience = self._checking(upstream, repository, name)
        if await patience.outlasts(flight):
            return await flight, joined
        # It goes on alone: when the upstream is back, nobody shall wait for what hangs.
        if self._patience.get((repository, name)) is patience:
            self._flights.leave((repository, name))
            del self._patience[repository, name]
        # What another replica is not answered for tells nothing of how this one would be.
        raise await self._late(upstream, repository, name, is_local=patience.is_of_another)

    async def wait(self, upstream: Upstream, repository: Repository, name: Name) -> tuple[Result, bool]:
        """Return what a check finds, however long it takes, and whether another had begun it.

        Raises:
            RegistryError: the check did.
        """
        flight, joined, _ = self._checking(upstream, repository, name)
        return await flight, joined

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

    def _checking(
        self, upstream: Upstream, repository: Repository, name: Name
    ) -> tuple[asyncio.Future[Result], bool, Patience]:
        """Return the check that is under way, or a new one, and how long to wait for it."""
        key, own = (repository, name), Patience(self._seconds)

        async def check() -> Result:
            try:
                return await self._check(upstream, repository, name, own, False)
            finally:
                if self._patience.get(key) is own:
                    del self._patience[key]

        flight, joined = self._flights.join(key, check)
        if not joined:
            self._patience[key] = own
        # Whoever joins waits no longer than the first. A flight that just landed has no patience any more.
        return flight, joined, self._patience.get(key, own)

    async def _look_for_end(self, upstream: Upstream, outage: Outage[Name]) -> None:
        try:
            while not outage.is_over:
                await asyncio.sleep(_TICK_SECONDS)
                identity = await self._identity(upstream) if outage.depends_on_credentials else ""
                due = outage.due(time.monotonic(), identity)
                probes = [self._probe(upstream, repository, name) for repository, name in due]
                ends = await asyncio.gather(*probes, return_exceptions=True)
                for (repository, _), ended in zip(due, ends, strict=True):
                    if ended is not None:
                        # A defect or a full disk is no outage: the next pull shall meet it, and say so.
                        self._log.error("asking after an outage broke down", upstream=upstream.name, error=repr(ended))
                        outage.answered(repository)
        finally:
            # Without anybody who looks for its end an outage would last for ever.
            del self._outages[upstream]

    async def _probe(self, upstream: Upstream, repository: Repository, name: Name) -> None:
        patience = Patience(self._seconds)
        with allowance():
            check = asyncio.create_task(self._check(upstream, repository, name, patience, True))
        try:
            if not await patience.outlasts(check):
                await self._late(upstream, repository, name, is_local=patience.is_of_another)
        finally:
            check.cancel()
            await asyncio.wait({check})
        if not check.cancelled() and not isinstance(check.exception(), RegistryError | None):
            check.result()

    async def _late(self, upstream: Upstream, repository: Repository, name: Name, *, is_local: bool) -> RegistryError:
        """Note that nothing moved forward, and return the error that says so."""
        error = RegistryError(ErrorCode.UNAVAILABLE, "nothing moved forward", failure=Failure.TIMEOUT)
        await self.failed(upstream, repository, name, error, is_local=is_local)
        return error
