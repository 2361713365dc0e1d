"""Orders: purges, pins and unpins, each carried out once by every replica of the fleet, in the order they came."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import structlog

from mirror.config import Upstreams
from mirror.config.globs import compile_globs
from mirror.fleet import Alone, Coordinator, Order
from mirror.hub.pins import Pins
from mirror.hub.purging import Purged, Purging
from mirror.hub.selection import Selection, SelectionError, select
from mirror.oci.errors import LayoverError
from mirror.oci.reference import Repository
from mirror.store import Store
from mirror.store.records import Carried, order_key

_HEARD = Carried("heard", "", 0, 0.0)
# Redis keeps orders for so long. Who was away for longer does not know what it missed.
_LONGEST_AWAY = 30 * 86400.0
# Numbers are milliseconds. What Redis lost in a fail-over is given back behind what came since, so that all look again
# at what is not older than this.
_OVERLAP = 600_000
# Redis forgets pins as well: those that hold are ordered anew before it does.
_RENEW_SECONDS = 15 * 86400.0
# As it starts a replica waits so long for Redis, and for an index that is being built.
_START_SECONDS = 2.0
_BUILD_SECONDS = 10.0
_POLL_SECONDS = 0.05
# Nobody has to wake a replica that hears of orders; if a word was lost, it looks by itself.
_LOOK_SECONDS = 30.0
_RETRY_SECONDS = 5.0
_NOTE_SECONDS = 3600.0


class NotPinned(LayoverError):
    """Nothing is pinned by the name that was to be unpinned."""


class Given(NamedTuple):
    """An order that was given and carried out here.

    `what` is the full form. `is_shared`: the fleet has it; `is_due`: it will be given to the fleet once Redis is back.
    """

    verb: str
    what: str
    is_shared: bool
    is_due: bool
    purged: Purged


class Orders:
    """Gives orders to the fleet, and carries out those that come from it."""

    def __init__(
        self, coordinator: Coordinator, store: Store, upstreams: Upstreams, purging: Purging, pins: Pins
    ) -> None:
        self._coordinator = coordinator
        self._store = store
        self._upstreams = upstreams
        self._purging = purging
        self._pins = pins
        # One at a time, in their order.
        self._lock = asyncio.Lock()
        self._woken = asyncio.Event()
        # Whether Redis may have lost all: nobody may have been there to notice it.
        self._has_lost = True
        # The number of the last purge that was carried out here: nothing that is held is older.
        self.epoch = 0
        self._done: dict[int, Purged] = {}
        self._purges: dict[str, tuple[float, Selection]] = {}
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("layover.hub")

    def purged_at(self, repository: Repository, name: str) -> float:
        """Return when a tag or digest was last purged, in fleet time; 0 if it was not in the last 30 days."""
        name = f"{repository}{'@' if ':' in name else ':'}{name}"
        return max((at for at, selection in self._purges.values() if selection.matches(name)), default=0.0)

    async def start(self) -> None:
        """Carry out what was missed, if the fleet can be asked soon, and go on carrying out what comes."""
        self._coordinator.on_order(self._woken.set)
        self._coordinator.on_amnesia(self._restore)
        for order in self._store.orders.values():
            self._note(order)
        await self._pins.start()
        if not isinstance(self._coordinator, Alone):
            await self._missed()
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Carry out nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._pins.close()

    async def give(self, verb: str, what: str) -> Given:
        """Give an order to the whole fleet, and return once it is carried out here.

        Raises:
            SelectionError: `what` is no image, digest or glob.
            NotPinned: it was to be unpinned.
            OSError: the store's disk is full or broken.
        """
        selection = select(what, self._upstreams)
        if verb == "unpin":
            self._check_pinned(selection)
        async with self._lock:
            order = await self._coordinator.order(verb, selection.text)
            if order is not None:
                await self._catch_up()
            if order is not None and order.number in self._done:
                return Given(verb, selection.text, True, False, self._done[order.number])
            # Numbered orders before this one may still have to be carried out: it shall not count as one of them.
            is_due = order is None and not isinstance(self._coordinator, Alone)
            carried = Carried(verb, selection.text, 0, self._coordinator.time, is_due)
            purged = await self._carry_out(carried)
        return Given(verb, selection.text, order is not None, is_due, purged)

    async def catch_up(self) -> bool:
        """Carry out what is new, and give the fleet what it lacks; False if it cannot be asked.

        Raises:
            OSError: the store's disk is full or broken.
        """
        async with self._lock:
            return await self._catch_up()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._woken.wait()
            self._woken.clear()
            if not await self._tried() and self._coordinator.is_up:
                await asyncio.sleep(_RETRY_SECONDS)
                self._woken.set()

    async def _missed(self) -> None:
        """Carry out what was missed, if Redis answers soon."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if await self._tried():
                return
            await asyncio.sleep(_POLL_SECONDS)
        self._log.warning("the fleet cannot be asked for orders now; they are carried out once it can")

    async def _tried(self) -> bool:
        try:
            return await self.catch_up()
        except OSError as error:
            self._log.error("an order cannot be carried out", error=str(error))
            return False

    async def _catch_up(self) -> bool:
        self._done.clear()
        for due in [each for each in self._store.orders.values() if each.is_due]:
            if await self._coordinator.order(due.verb, due.what) is None:
                return False
            await self._remember(msgspec.structs.replace(due, is_due=False))
        floor = max(0, max((each.number for each in self._store.orders.values()), default=0) - _OVERLAP)
        found = await self._coordinator.orders(floor)
        if found is None:
            return False
        await self._note_absence()
        await self._give_back(floor, found)
        for order in found:
            if self._is_news(order):
                carried = Carried(order.verb, order.what, order.number, order.at)
                self._done[order.number] = await self._carry_out(carried)
        await self._note_heard()
        return True

    async def _give_back(self, floor: int, found: Sequence[Order]) -> None:
        """Tell Redis of the orders that it has lost."""
        numbers = {order.number for order in found}
        if self._has_lost:
            self._has_lost = False
            floor = 0
        own = [each for each in self._store.orders.values() if each.number > floor and each.number not in numbers]
        if own:
            own.sort(key=lambda each: each.number)
            await self._coordinator.restore([Order(each.number, each.verb, each.what, each.at) for each in own])

    def _restore(self) -> None:
        self._has_lost = True
        self._woken.set()

    def _is_news(self, order: Order) -> bool:
        known = self._store.orders.get(Carried(order.verb, order.what, 0, 0.0).key)
        if known is not None and known.number >= order.number:
            return False
        if order.verb == "purge":
            return order.at > self._coordinator.time - _LONGEST_AWAY
        later = [each for each in self._store.orders.values() if each.verb == "unpin" and each.number > order.number]
        return not any(compile_globs([each.what])(order.what) for each in later)

    async def _carry_out(self, order: Carried) -> Purged:
        purged = Purged()
        try:
            selection = select(order.what, self._upstreams)
        except SelectionError:
            self._log.error("an order is not understood", verb=order.verb, what=order.what)
        else:
            if order.verb == "purge":
                await self._index_built()
                age = max(0.0, self._coordinator.time - order.at)
                purged = await self._purging.purge(selection, time.time() - age)
            elif order.verb == "unpin":
                for pin in self._pinned_by(selection):
                    key = order_key("pin", pin)
                    if not order.number or self._store.orders[key].number < order.number:
                        await self._store.remember_order(key, None)
        await self._remember(order)
        if order.verb != "purge":
            await self._pins.refresh()
        self._log.info("carried out", order=order.verb, what=order.what, number=order.number, **purged._asdict())
        return purged

    async def _remember(self, order: Carried) -> None:
        self._note(order)
        await self._store.remember_order(order.key, order)

    def _note(self, order: Carried) -> None:
        if order.verb == "purge":
            self.epoch = max(self.epoch, order.number)
            with contextlib.suppress(SelectionError):
                self._purges[order.what] = order.at, select(order.what, self._upstreams)

    async def _note_absence(self) -> None:
        """Give up what may have been purged or unpinned, if nothing was heard of the fleet for too long."""
        now, heard = self._coordinator.time, self._store.orders.get(_HEARD.key)
        if heard is not None and now - heard.at > _LONGEST_AWAY:
            self._log.warning("this replica was away for longer than orders are kept: it goes on without tags")
            await self._purging.drop_tags()
            for key in [key for key, order in self._store.orders.items() if order.verb == "pin"]:
                await self._store.remember_order(key, None)
            await self._pins.refresh()

    async def _note_heard(self) -> None:
        """Note when the fleet was last heard of, and see to what is forgotten with time."""
        now, heard = self._coordinator.time, self._store.orders.get(_HEARD.key)
        if heard is None or abs(now - heard.at) > _NOTE_SECONDS:
            await self._remember(msgspec.structs.replace(_HEARD, at=now))
            await self._prune(now - _LONGEST_AWAY)
            for order in list(self._store.orders.values()):
                if order.verb == "pin" and order.number and order.at < now - _RENEW_SECONDS:
                    await self._coordinator.order(order.verb, order.what)

    async def _prune(self, before: float) -> None:
        """Forget old purges, but for the last order of all, which tells how far this replica is."""
        last = max((each.number for each in self._store.orders.values()), default=0)
        for key, order in list(self._store.orders.items()):
            if order.verb == "purge" and order.at < before and order.number < last and not order.is_due:
                await self._store.remember_order(key, None)
                self._purges.pop(order.what, None)

    async def _index_built(self) -> None:
        """Wait for an index that is being built, but not for long: what it brings later was purged in the journal."""
        for _ in range(int(_BUILD_SECONDS / _POLL_SECONDS)):
            if self._store.is_built:
                return
            await asyncio.sleep(_POLL_SECONDS)

    def _pinned_by(self, selection: Selection) -> list[str]:
        """Return the pins that a name or a glob names."""
        return [pin.what for pin in self._pins.all if pin.what == selection.text or selection.matches(pin.what)]

    def _check_pinned(self, selection: Selection) -> None:
        if not self._pinned_by(selection):
            wider = [pin.what for pin in self._pins.all if compile_globs([pin.what])(selection.text)]
            hint = f"; it is pinned by {wider[0]}, which can be unpinned as a whole" if wider else ""
            raise NotPinned(f"{selection.text} is not pinned by that name{hint}")
