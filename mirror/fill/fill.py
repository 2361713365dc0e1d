"""One fill: the one transfer that brings a blob into the store."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

import structlog

from mirror.channel import Progress
from mirror.fill.intake import Intake
from mirror.fill.lane import RangesLost
from mirror.fill.lanes import Lanes
from mirror.fill.lead import Bound, portion
from mirror.fill.lender import TAIL, SourceLost
from mirror.fill.precedence import SPARE_ROOM, Precedence, Turn
from mirror.fill.schedule import Schedule, Span, first_span
from mirror.fill.sources import Sources, WrongSize
from mirror.fill.supply import Supply
from mirror.fill.threads import finished
from mirror.fill.transfer import Transfer
from mirror.fill.verifier import Verifier
from mirror.observe.metrics import HubMetrics
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source import BlobStream, RangeRefused
from mirror.store import Partial, Store

_CLAIM_STEP = 16 * 2**20
# A body whose end nobody has told is brought in only as long as somebody reads it.
_LONGEST_ALONE = 60.0
_Result = TypeVar("_Result")


class DigestMismatch(RegistryError):
    """What was received is not what the digest says."""

    def __init__(self, digest: Digest, *, was_resumed: bool) -> None:
        text = f"what the upstream sent for {digest} does not have that digest; it was thrown away"
        super().__init__(ErrorCode.UNAVAILABLE, text, failure=Failure.SERVER, retry_after=10)
        self.was_resumed = was_resumed


class Misled(RegistryError):
    """What was received is not what the digest says, and siblings sent some of it."""

    def __init__(self, digest: Digest) -> None:
        text = f"what siblings sent for {digest} does not have that digest; it was thrown away"
        super().__init__(ErrorCode.UNAVAILABLE, text, failure=Failure.SERVER, retry_after=1)


class Fill:
    """A blob on its way in. Readers ask `progress`; whether they come or go changes nothing."""

    def __init__(
        self,
        take_number: Callable[[Fill], int],
        digest: Digest,
        repository: Repository,
        supply: Supply,
        size: int | None,
        store: Store,
        hashing: Executor,
        metrics: HubMetrics,
    ) -> None:
        """Prepare the fill of `digest` from what `supply` chooses; `size` is what a descriptor says of it.

        `take_number` gives the fill new numbers: at its start, and each time it begins anew. Siblings read it by one of
        their own, `lent_number`. Until `read` is called it is brought in ahead, behind all that are read.
        """
        self._take_number = take_number
        self.number, self.lent_number = take_number(self), take_number(self)
        self.digest = digest
        self.repository = repository
        self.size = self._described = size
        self.is_verified = False
        self.lost_room = False
        self.error: RegistryError | None = None
        self.path = ""
        self._store = store
        self._hashing = hashing
        self._metrics = metrics
        self._turn = Turn()
        self._task: asyncio.Task[None] | None = None
        self._gives_way = False
        self._is_purged = False
        # Each upstream's own, as the same digest may be filled from several at a time.
        self._origin = hashlib.sha256(repository.upstream.encode()).hexdigest()[:8]
        self._supply = supply
        self._sources = Sources(supply, repository, digest, size, metrics)
        self._partial: Partial | None = None
        self._promised = 0
        self._confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._asked_at = time.monotonic()
        self._log = structlog.get_logger("layover.fill")

    @property
    def is_read(self) -> bool:
        """Whether anybody asked for it, or it is only brought in ahead."""
        return self._turn.is_read

    @property
    def was_opened(self) -> bool:
        """Whether the upstream was asked: not where all came from siblings, or was left by an earlier fill."""
        return self._sources.was_opened

    @property
    def chain(self) -> tuple[str, ...]:
        """Whose bytes these are: siblings by their identities, the nearest first; none: the upstream's."""
        return self._supply.chain

    @property
    def followers(self) -> set[str]:
        """The siblings that read this fill, by their identities."""
        return self._supply.followers

    def read(self) -> None:
        """Go first from now on: somebody reads it."""
        self._turn.read()

    async def confirmed(self) -> None:
        """Wait until a source confirmed the blob, or the fill ended.

        Raises:
            RegistryError: no source has it.
        """
        await asyncio.shield(self._confirmed)

    async def over(self) -> None:
        """Wait until the fill has ended and left nothing behind that it does not mean to."""
        await asyncio.shield(self._over)

    def forget(self) -> None:
        """Keep nothing of it once it is whole: it was purged. Who reads it reads on."""
        self._is_purged = True

    async def progress(self, number: int, offset: int) -> Progress:
        """Wait until there is something to read at `offset`, or the fill ended, or left that number behind.

        Raises:
            RegistryError: the fill failed.
        """
        while True:
            if not self._is_current(number):
                return Progress(offset, is_forgotten=True)
            if self.error is not None:
                raise self.error.with_traceback(None)
            self._asked_at = time.monotonic()
            end = self._readable_end(offset)
            if number == self.lent_number:
                self._supply.copied(offset)
                end = min(end, offset + portion(self.size or 0))
            if end > offset or self.is_verified or self.lost_room:
                return Progress(end, self.size, self.is_verified, self.lost_room)
            woken = asyncio.get_running_loop().create_future()
            self._waiting.append((number, offset, woken))
            await woken

    async def run(self, precedence: Precedence) -> None:
        """Do the whole transfer when its turn is; how it ended is in `is_verified`, `lost_room` or `error`."""
        started = time.monotonic()
        self._task = asyncio.current_task()
        self._turn.enter(precedence, self._give_way)
        self._metrics.fills_active.inc()
        try:
            await self._fill()
            self._metrics.fill_seconds.observe(time.monotonic() - started)
        except RegistryError as error:
            self.error = error
        except OSError as error:
            self.lost_room = True
            self._log.error("a blob cannot be stored; its readers are streamed through", error=str(error))
            await self._discard()
        finally:
            self._metrics.fills_active.dec()
            try:
                await self._end()
            finally:
                self._turn.leave()
                self._over.set_result(None)

    async def _fill(self) -> None:
        self._partial = partial = await self._on_disk(lambda: self._store.partial(self.digest, self._origin))
        self.path = str(partial.path)
        if self.size is not None and partial.size not in {None, self.size}:
            await self._restart(partial)
            partial.size = self.size
        partial.size = self.size = partial.size or self.size
        self._sources.size = self.size
        may_restart = True
        while True:
            try:
                await self._receive(partial)
                return
            except Misled:
                self._supply.expel()
            except (RangeRefused, WrongSize):
                # What is there cannot be the beginning of what the source has.
                if not may_restart or not partial.segments.total:
                    raise
                may_restart = False
            await self._restart(partial)
            self._sources.size = partial.size = self.size = self._described

    async def _receive(self, partial: Partial) -> None:
        """Bring in what is missing, and verify it all."""
        start, span, stream = partial.segments.end_from(0), None, None
        if self.size is not None:
            await self._room_made()
        if not await self._claimed():
            await self._lose_room()
            return
        if start != self.size or not start:
            await self._turn.comes()
            span, stream = await self._open(partial)
            self.size = partial.size = self._sources.size
            await self._room_made()
            if not await self._claimed():
                await stream.close()
                await self._lose_room()
                return
        self._confirm()
        verifier = Verifier(partial, self._hashing)
        verifying = asyncio.create_task(verifier.run())
        try:
            if stream is not None:
                await self._take_in(partial, verifier, span, stream)
            verifier.complete()
            is_right = await verifying
        finally:
            verifying.cancel()
            await asyncio.wait({verifying})
        await self._finish(partial, is_right=is_right)

    async def _open(self, partial: Partial) -> tuple[Span | None, BlobStream]:
        """Return an open answer to what is missing first, and what was asked for: None for all the rest.

        Raises:
            RegistryError: no source has the blob; the upstream's error.
            RangeRefused: the upstream says that the blob has fewer bytes than there are.
        """
        while True:
            pace = await self._sources.choose(partial.segments.total)
            bound = None if self.size is None else self._sources.bound(self.size, partial.segments.end_from(0))
            ahead = None if bound is None else bound.ahead
            span = first_span(self.size, partial.segments.spans, pace.share, pace.rate, ahead)
            try:
                return span, await self._sources.open(*(span or (partial.segments.end_from(0),)))
            except SourceLost:
                continue

    async def _take_in(self, partial: Partial, verifier: Verifier, span: Span | None, stream: BlobStream) -> None:
        """Bring in what is missing, beginning with a stream that was asked for `span`, or for all the rest if None."""
        intake = Intake(lambda runs: self._write(partial, verifier, runs))
        try:
            while True:
                try:
                    await self._take_in_from(partial, intake, span, stream)
                    break
                except SourceLost:
                    await intake.flush()
                    span, stream = await self._open(partial)
            await intake.flush()
        finally:
            await intake.end()
        self.size = partial.size = self._sources.size

    async def _take_in_from(self, partial: Partial, intake: Intake, span: Span | None, stream: BlobStream) -> None:
        if span is not None and (stream.start, stream.stop) == span and span.stop != self.size:
            await self._take_in_ranges(partial, intake, span, stream)
        else:
            await self._take_in_order(intake, Transfer(self._sources, partial.segments.end_from(0), stream))

    async def _take_in_ranges(self, partial: Partial, intake: Intake, span: Span, stream: BlobStream) -> None:
        assert self.size is not None
        size = self.size
        schedule = Schedule(size, sorted([*partial.segments.spans, span]))

        def bound() -> Bound | None:
            return self._sources.bound(size, partial.segments.end_from(0))

        try:
            lanes = Lanes(self._sources, schedule, intake, self._wanted, self._turn, bound)
            await lanes.run(span, stream)
        except RangesLost:
            await intake.flush()
            await self._take_in_order(intake, Transfer(self._sources, partial.segments.end_from(0)))

    async def _take_in_order(self, intake: Intake, transfer: Transfer) -> None:
        try:
            while piece := await self._next_piece(transfer):
                is_alone = not self._waiting and time.monotonic() - self._asked_at > _LONGEST_ALONE
                if is_alone and self._sources.size is None:
                    raise _endless(self._sources.label, self.digest)
                intake.add(transfer.offset - len(piece), piece)
                await intake.ready()
        finally:
            await transfer.close()

    async def _next_piece(self, transfer: Transfer) -> bytes:
        if await self._turn.comes():
            transfer.rested()
        return await transfer.read()

    def _wanted(self) -> list[int]:
        """Return where readers wait for what may be shown once it is there, who waits longest first."""
        reach = (self.size or 0) - TAIL
        offsets = (offset for number, offset, _ in self._waiting if self._is_current(number) and offset < reach)
        return list(dict.fromkeys(offsets))

    async def _write(self, partial: Partial, verifier: Verifier, runs: Sequence[tuple[int, Sequence[bytes]]]) -> None:
        before = partial.segments.total
        if not self._claim(sum(len(piece) for _, pieces in runs for piece in pieces)):
            raise OSError("there is no room left in the store")
        await self._on_disk(lambda: partial.write_runs(runs))
        for offset, pieces in runs:
            partial.added(offset, offset + sum(map(len, pieces)))
        # What came a second time takes no more room.
        new = partial.segments.total - before
        self._promised -= new
        self._store.room.spend(new)
        verifier.advance()
        self._wake()

    async def _finish(self, partial: Partial, *, is_right: bool) -> None:
        if not is_right and self._supply.lenders:
            self._metrics.digest_mismatches.labels("").inc()
            self._log.error("what siblings sent does not have its digest", digest=self.digest)
            raise Misled(self.digest)
        if not is_right:
            self._metrics.digest_mismatches.labels(self._sources.label).inc()
            self._log.error(
                "what the upstream sent does not have its digest", upstream=self._sources.label, digest=self.digest
            )
            was_resumed = partial.resumed > 0
            await self._discard()
            raise DigestMismatch(self.digest, was_resumed=was_resumed)
        self.is_verified = True
        self._wake()
        is_there = self._store.content.size(self.digest) is not None or self.digest in self._store.naming
        if is_there or self._is_purged:
            # Another upstream's fill of it was quicker, or nobody is to have it from here.
            await self._discard()
            return
        self._store.naming.add(self.digest)
        try:
            await self._on_disk(lambda: partial.publish(self._store.content))
        finally:
            self._store.naming.discard(self.digest)
        self._store.published(self.digest, partial.segments.total)
        await self._unkeep()

    async def _unkeep(self) -> None:
        if self._is_purged:
            await self._store.forget([self.digest])

    def _is_current(self, number: int) -> bool:
        return number in {self.number, self.lent_number}

    def _readable_end(self, offset: int) -> int:
        """Return how far may be read from `offset` on: what is there, but for the tail until it verified."""
        if self._partial is None:
            return offset
        end = self._partial.segments.end_from(offset)
        if self.is_verified:
            return end
        whole = self.size if self.size is not None else self._partial.segments.end_from(0)
        return max(offset, min(end, whole - TAIL))

    def _claim(self, least: int) -> bool:
        """Have room promised for all that is missing, or, while that is unknown, for a good deal more than `least`."""
        assert self._partial is not None
        missing = least
        if self.size is not None:
            missing = max(least, self.size - self._partial.segments.total)
        if self._promised >= missing:
            return True
        more = missing - self._promised if self.size is not None else max(least, _CLAIM_STEP)
        if not self._store.room.claim(more, 0.0 if self.is_read else SPARE_ROOM):
            return False
        self._promised += more
        return True

    async def _room_made(self) -> None:
        """Wait a little, if need be, until there may be room for what is missing."""
        assert self._partial is not None
        missing = _CLAIM_STEP if self.size is None else self.size - self._partial.segments.total
        if missing > self._promised:
            await self._store.room.ready(missing - self._promised, 0.0 if self.is_read else SPARE_ROOM)

    async def _claimed(self) -> bool:
        """Have room promised for all that is missing; what nobody reads gives way to what somebody does."""
        while not self._claim(0):
            if not await self._turn.make_way():
                return False
        return True

    async def _give_way(self) -> None:
        if self._task is not None and not (self.is_verified or self.lost_room or self.error):
            self._gives_way = True
            self.error = _ended(self.digest)
            self._task.cancel()
        await self.over()

    async def _lose_room(self) -> None:
        self.lost_room = True
        await self._discard()

    async def _restart(self, partial: Partial) -> None:
        """Begin anew. Who read what was there must not be given the rest of something else."""
        self._store.room.free(partial.segments.total)
        await self._on_disk(partial.restart)
        self.number, self.lent_number = self._take_number(self), self._take_number(self)
        self._wake()

    async def _discard(self) -> None:
        if self._partial is not None:
            self._store.room.free(self._partial.segments.total)
            await self._on_disk(self._partial.discard)

    def _confirm(self) -> None:
        if not self._confirmed.done():
            self._confirmed.set_result(None)

    def _wake(self) -> None:
        still = []
        has_ended = self.is_verified or self.lost_room or self.error is not None
        for number, offset, woken in self._waiting:
            if woken.done():
                continue
            if has_ended or not self._is_current(number) or self._readable_end(offset) > offset:
                woken.set_result(None)
            else:
                still.append((number, offset, woken))
        self._waiting = still

    async def _end(self) -> None:
        if not (self.is_verified or self.lost_room or self.error):
            self.error = _ended(self.digest)
        self._store.room.unclaim(self._promised)
        self._promised = 0
        if self.error is not None and not self._confirmed.done():
            self._confirmed.set_exception(self.error)
            self._confirmed.exception()
        self._confirm()
        self._wake()
        if self._partial is not None:
            partial = self._partial
            if (self._gives_way or self._is_purged) and not self.is_verified:
                await self._discard()
            elif not self.is_verified:
                await self._on_disk(lambda: _clear_empty(partial))
            await self._on_disk(partial.close)

    async def _on_disk(self, call: Callable[[], _Result]) -> _Result:
        return await finished(self._store.disk, call)


def _ended(digest: Digest) -> RegistryError:
    text = f"the fill of {digest} was ended; try again"
    return RegistryError(ErrorCode.UNAVAILABLE, text, failure=Failure.RESET, retry_after=1)


def _endless(label: str, digest: Digest) -> RegistryError:
    text = f"upstream {label} tells no size of {digest} and finds no end, and nobody reads it any more"
    return RegistryError(ErrorCode.UNAVAILABLE, text, failure=Failure.SERVER, retry_after=10)


def _clear_empty(partial: Partial) -> None:
    """Keep what a fill that ended early brought, for the next one to resume; nothing is kept of nothing."""
    if not partial.segments.total:
        partial.discard()
