"""The janitor: keeps the store between its marks, in slices, and lets go what was not used for long."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import AsyncGenerator, Callable, Container, Mapping, Sequence
from contextlib import ExitStack
from typing import TypeVar

import structlog

from mirror.config import StoreSettings
from mirror.eviction.consent import Consent, Grant
from mirror.eviction.offers import Offers
from mirror.eviction.plan import Candidate, Plan
from mirror.eviction.popularity import Popularity
from mirror.observe.audit import Evicted, Evictions, Reason
from mirror.oci.digest import Digest
from mirror.oci.use import Use
from mirror.store import Store

_SLICE = 256
# Nobody else is promised what the fleet is being asked about: not too much at once.
_ASKED_AT_ONCE = 32
# A thread that plans lets the others go on after so many objects.
_ROWS_AT_ONCE = 500
_BREATH_SECONDS = 0.001
# Nobody is expected to resume a partial file that was left alone for so long.
_ABANDONED_SECONDS = 600.0
_LONGEST_PAUSE = 60.0
_SHORTEST_PAUSE = 0.25
_LOOKS_PER_UNUSED = 8
# Where nothing could go, nothing is tried for so long, or for so many times as long as it took to find out.
_REST_SECONDS = 0.5
_REST_FACTOR = 20.0
# That there are no spares left is believed for so long, or for so many times as long as it took to find out.
_SPARES_KNOWN_SECONDS = 0.5
_SPARES_KNOWN_FACTOR = 2.0
# While those that are to keep spares do not confirm it, last copies stay for so long.
_UNCONFIRMED_SECONDS = 30.0
_SAVED_EVERY_SECONDS = 300.0
_Result = TypeVar("_Result")


class Janitor:
    """Makes room when there is too little, ahead of need, and never in the way of a pull."""

    def __init__(
        self,
        store: Store,
        settings: StoreSettings,
        evictions: Evictions,
        consent: Consent | None = None,
        offers: Offers | None = None,
        pinned: Container[Digest] = frozenset(),
    ) -> None:
        """Look after `store`, with the `consent` of the fleet if there is one; what is `pinned` stays."""
        self._store = store
        self._unused_for = float(settings.unused_for)
        self._evictions = evictions
        self._consent = consent
        self._offers = offers
        self._pinned = pinned
        self.popularity = Popularity()
        self._memory = store.path / "popularity"
        self._saved_at = time.monotonic()
        self._woken = asyncio.Event()
        self._rests_until = 0.0
        self._left = 0
        self._spared_at = time.monotonic()
        self._has_gone = False
        self._looked_at = -math.inf
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("layover.eviction")

    async def start(self) -> None:
        """Begin to look after an open store."""
        with contextlib.suppress(OSError):
            self.popularity.load(await self._in_disk_thread(self._memory.read_bytes))
        self._store.usage.on_used.append(self._note)
        self._store.room.on_need = self._wake
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop; what was counted is kept for the next run."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        await self._store.usage.write()
        await self._save()

    def _note(self, used: Mapping[Digest, Use]) -> None:
        occasions = {
            digest: self.popularity.note(digest, use.last, use.times) for digest, use in used.items() if use.times
        }
        if self._consent is not None:
            # The fleet counts whole occasions: parts of one are told as often as they are large.
            self._consent.used({digest: 1 for digest, part in occasions.items() if random.random() < part})

    def _wake(self) -> None:
        if time.monotonic() >= self._rests_until:
            self._woken.set()
        else:
            self._store.room.give_up()

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self._round()
            except Exception as error:  # noqa: BLE001 - without this task nothing would ever go again
                self._log.error("the janitor met a defect", error=repr(error))
                self._rest(time.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._woken.wait()

    def _pause(self) -> float:
        if self._store.room.is_short:
            return max(_SHORTEST_PAUSE, self._rests_until - time.monotonic())
        # Replicas that look at the same time would stand in one another's way.
        pause = random.uniform(0.5, 1.0) * self._unused_for / _LOOKS_PER_UNUSED
        return min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, pause))

    async def _round(self) -> None:
        room = self._store.room
        if not room.is_counted:
            return
        if room.is_short:
            await self._relieve()
        if time.monotonic() >= self._looked_at + self._unused_for / _LOOKS_PER_UNUSED:
            self._looked_at = time.monotonic()
            await self._let_unused_go()
        if time.monotonic() >= self._saved_at + _SAVED_EVERY_SECONDS:
            await self._save()

    # Pressure

    async def _relieve(self) -> None:
        """Let go what is missed least until the low mark is reached, or nothing more may go."""
        started, self._has_gone = time.monotonic(), False
        await self._clear_leftovers(_ABANDONED_SECONDS)
        if self._store.room.excess:
            plan = await self._planned()
            steps = self._by_consent(plan) if self._is_in_fleet() else self._alone(plan)
            async with contextlib.aclosing(steps):
                async for _ in steps:
                    if not self._store.room.excess:
                        return
            await self._clear_leftovers(0)
        if self._has_gone:
            self._woken.set()  # others may have come meanwhile
        elif self._store.room.is_short:
            self._rest(started)

    def _is_in_fleet(self) -> bool:
        return self._consent is not None and self._consent.is_up

    def _rest(self, started: float) -> None:
        """Try nothing for a while: nobody shall wait for room that cannot be made."""
        now = time.monotonic()
        self._rests_until = now + max(_REST_SECONDS, _REST_FACTOR * (now - started))
        self._store.room.give_up()

    async def _alone(self, plan: Plan) -> AsyncGenerator[None, None]:
        """Let go in slices what is missed least, first of what another replica had too when that was last known."""
        consent = self._consent
        for is_spare in (False,) if consent is None else (True, False):
            for candidates in plan.coldest(_SLICE):
                going = [each for each in candidates if consent is None or consent.was_spare(each.digest) is is_spare]
                await self._let_go(self._enough(going), None, "pressure")
                yield

    async def _by_consent(self, plan: Plan) -> AsyncGenerator[None, None]:
        """Let go in slices what the fleet has enough of, then what it has more than once, and last its last copies."""
        assert self._consent is not None
        if self._consent.min_copies > 1:
            async for _ in self._spares(plan, self._consent.min_copies):
                yield
        began, unconfirmed = time.monotonic(), self._consent.unconfirmed
        async for _ in self._spares(plan, 1):
            yield
        ended = time.monotonic()
        self._left = self._consent.unconfirmed - unconfirmed
        self._spared_at = self._spared_at if self._left else ended
        # What others have, as it seems, may still be confirmed: there are spares as long as nobody denies it.
        if not self._is_in_fleet() or ended < self._spared_at + _UNCONFIRMED_SECONDS * bool(self._left):
            return
        known_until = ended + max(_SPARES_KNOWN_SECONDS, _SPARES_KNOWN_FACTOR * (ended - began))
        async for _ in self._last_copies(plan, known_until):
            yield

    async def _spares(self, plan: Plan, least: int) -> AsyncGenerator[None, None]:
        """Let go what `least` other replicas have too."""
        assert self._consent is not None
        for candidates in plan.coldest(_SLICE):
            spares = await self._consent.spares(self._evictable(candidates), least)
            while spares and self._store.room.excess:
                going = self._enough(spares)[:_ASKED_AT_ONCE]
                spares = self._evictable([each for each in spares if each not in going])
                await self._let_go(going, least, "pressure")
            yield

    async def _last_copies(self, plan: Plan, until: float) -> AsyncGenerator[None, None]:
        """Offer the coldest to others, then let go by score, `until` there may be spares again."""
        for candidates in plan.coldest(_SLICE):
            left = self._evictable(candidates)
            if self._offers is not None and not self._store.room.is_waited_for:
                await self._offers.offer(self._enough(left))
            while left and self._store.room.excess:
                if time.monotonic() >= until or not self._is_in_fleet():
                    self._woken.set()
                    return
                going = self._enough(left)[:_ASKED_AT_ONCE]
                left = self._evictable([each for each in left if each not in going])
                await self._let_go(going, 0, "pressure", self._left)
            yield

    def _evictable(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        usage, holds = self._store.usage, self._store.holds
        return [
            each
            for each in candidates
            if each.digest not in self._pinned and not usage.is_open(each.digest) and not holds.is_held(each.digest)
        ]

    def _enough(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the first of those that may go whose bytes are all that has to go."""
        wanted, enough = self._store.room.excess, []
        for each in self._evictable(candidates):
            if wanted <= 0:
                break
            wanted -= each.size
            enough.append(each)
        return enough

    async def _clear_leftovers(self, unchanged_for: float) -> None:
        excess = self._store.room.excess
        if excess:
            for each in await self._store.forget_leftovers(excess, unchanged_for):
                await self._record([Evicted(time.time(), each.digest, each.size, "abandoned")])

    # Age

    async def _let_unused_go(self) -> None:
        """Let go what was not used for `unused_for`: in a fleet only by its consent, down to so many copies."""
        if math.isinf(self._unused_for) or (self._consent is not None and not self._consent.is_up):
            return
        plan = await self._planned()
        for candidates in plan.unused(self._unused_for, _SLICE if self._consent is None else _ASKED_AT_ONCE):
            going = self._evictable(candidates)
            await self._let_go(going, None if self._consent is None else self._consent.min_copies, "unused")

    # Both

    async def _planned(self) -> Plan:
        await self._store.usage.write()
        leaving = self._store.room.excess
        return await self._in_disk_thread(lambda: self._plan(leaving))

    def _plan(self, leaving: int) -> Plan:
        now = time.time()
        plan = Plan(now)
        for held in self._store.content.files():
            plan.add(held.digest, held.taken, held.used, self.popularity.of(held.digest, now))
            if len(plan) % _ROWS_AT_ONCE == 0:
                time.sleep(_BREATH_SECONDS)
        plan.settle(leaving)
        return plan

    async def _let_go(
        self, candidates: Sequence[Candidate], least: int | None, reason: Reason, spares: int | None = None
    ) -> Mapping[Digest, int]:
        """Let content go, as far as the fleet consents, that is to keep `least` copies; None: without asking it.

        Nobody is promised it meanwhile. Return how many bytes went with what.
        """
        with ExitStack() as leaving:
            going = [each for each in candidates if leaving.enter_context(self._store.holds.leaving(each.digest))]
            grants = [Grant(each) for each in going]
            if self._consent is not None and least is not None and going:
                grants = await self._consent.grants(going, least, self._store.holds)
            freed = await self._store.forget([each.candidate.digest for each in grants])
            if self._consent is not None:
                self._consent.settle(grants, freed)
        now = time.time()
        await self._record([_evicted(each, reason, now, spares) for each in grants if each.candidate.digest in freed])
        return freed

    async def _record(self, evicted: list[Evicted]) -> None:
        if evicted:
            self._has_gone = True
            await self._in_disk_thread(lambda: self._evictions.record(evicted))

    async def _save(self) -> None:
        self._saved_at = time.monotonic()
        dumped = self.popularity.dump()
        fresh = self._memory.with_suffix(".new")

        def save() -> None:
            fresh.write_bytes(dumped)
            fresh.replace(self._memory)

        try:
            await self._in_disk_thread(save)
        except OSError as error:
            self._log.warning("how popular content is cannot be saved", error=str(error))

    async def _in_disk_thread(self, call: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._store.disk, call)


def _evicted(grant: Grant, reason: Reason, now: float, spares: int | None) -> Evicted:
    each = grant.candidate
    was_last = None if grant.copies is None else grant.copies == 0
    return Evicted(
        now,
        each.digest,
        each.size,
        reason,
        each.score,
        each.popularity,
        each.idle,
        grant.copies,
        grant.keeper,
        was_last,
        spares,
    )
