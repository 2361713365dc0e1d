"""Other mirrors of an upstream, asked before it, in the order configured, and never with its credentials."""

from __future__ import annotations

import asyncio
import time

from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.source.upstream import failures
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.breaker import Breaker, Breakers
from mirror.source.upstream.connections import Connections
from mirror.source.upstream.redirects import follow
from mirror.source.upstream.slots import Slot

# What is left of a request's time for the upstream itself, however many endpoints fail to answer.
_LAST_SECONDS = 3.5
_PROBE_SECONDS = 3.0
_KINDS = frozenset({"manifest", "blob"})
_EXCLUDED_SECONDS = 3600.0
_MOST_EXCLUDED = 10_000


class Endpoints:
    """Which endpoints are worth asking. Those that fail are asked on the quiet whether they are back."""

    def __init__(self, connections: Connections, breakers: Breakers) -> None:
        self._connections = connections
        self._breakers = breakers
        self._excluded: dict[tuple[str, ...], float] = {}
        self._probes: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """End every question under way."""
        for probe in self._probes:
            probe.cancel()
        if self._probes:
            await asyncio.wait(self._probes)

    def before(self, ask: Ask) -> list[Ask]:
        """Return the same request at each endpoint to try before the upstream itself, with the time that it has."""
        if ask.kind not in _KINDS or ask.is_anonymous:
            return []
        chosen = [base for base in ask.upstream.endpoints if self._is_worth_it(ask, base)]
        now = time.monotonic()
        share = max(0.0, ask.deadline - _LAST_SECONDS - now) / max(1, len(chosen))
        return [
            ask._replace(base=base, is_probe=False, deadline=now + share * (place + 1))
            for place, base in enumerate(chosen)
        ]

    def exclude(self, ask: Ask) -> None:
        """Have an endpoint not asked for the same for a while: what it gave was something else."""
        self._exclude(ask.base, ask.kind, f"{ask.repository}/{ask.path}")

    def exclude_blob(self, base: str, digest: Digest) -> None:
        """Have an endpoint not asked for a blob for a while, in whatever repository."""
        self._exclude(base, "blob", f"blobs/{digest}")

    def _exclude(self, *key: str) -> None:
        self._excluded.pop(key, None)
        self._excluded[key] = time.monotonic() + _EXCLUDED_SECONDS
        while len(self._excluded) > _MOST_EXCLUDED:
            del self._excluded[next(iter(self._excluded))]

    def _is_worth_it(self, ask: Ask, base: str) -> bool:
        what = ask.path if ask.kind == "blob" else f"{ask.repository}/{ask.path}"
        if base in ask.avoided or self._excluded.get((base, ask.kind, what), 0.0) > time.monotonic():
            return False
        breaker = self._breakers.of(ask.upstream, base)
        if breaker.is_due:
            # Nobody who waits for something shall be the one who finds out.
            probe = asyncio.create_task(self._probe(breaker, _question(ask, base)))
            self._probes.add(probe)
            probe.add_done_callback(self._probes.discard)
        return not breaker.is_open

    async def _probe(self, breaker: Breaker, ask: Ask) -> None:
        if not breaker.is_due:
            return
        is_probe = await breaker.enter(ask)
        slot: Slot | None = None
        error: BaseException | None = None
        try:
            slot = await self._connections.turn(ask)
            answer = await follow(self._connections, ask, ask.url, lambda _: None)
            answer.close()
            if answer.status >= 500:
                host = answer.url.authority
                error = failures.refusal(ask.upstream, answer.status, answer.headers, b"", ask.unknown, host)
        except BaseException as raised:
            error = raised
            if not isinstance(raised, RegistryError):
                raise
        finally:
            if slot is not None:
                slot.release()
            breaker.leave(ask, error, was_probe=is_probe)


def _question(ask: Ask, base: str) -> Ask:
    deadline = time.monotonic() + _PROBE_SECONDS
    return Ask(ask.upstream, ask.repository, ask.kind, "HEAD", ask.path, ask.unknown, base=base, deadline=deadline)
