"""Files on their way into sockets, past the transports: a slice a turn, so that downloads starve nobody."""

from __future__ import annotations

import asyncio
import os
import select
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor

from mirror.pull import FilePiece

SLICE = 2**20
_READ = 256 * 2**10
_STALLED_SECONDS = 300.0
_ROOM = select.EPOLLOUT | select.EPOLLONESHOT


class Sending:
    """A piece of a file on its way into a socket; the bytes before `offset` have left."""

    def __init__(self, socket: int, piece: FilePiece) -> None:
        """Prepare to send; both descriptors have to stay open until `done`, whatever its outcome."""
        self.socket = socket
        self.descriptor, self.offset, self.stop = piece
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()

    def fail(self, error: BaseException) -> None:
        """End early."""
        if not self.done.done():
            self.done.set_exception(error)


class Sender:
    """Sends for all downloads of a door: each turn of the event loop has one slice of one of them.

    Callbacks do it, as a task costs more to wake than a slice to send: it wakes when its piece has left.
    """

    def __init__(self, disk: Executor) -> None:
        """Have slices that are not in memory brought there by `disk`."""
        self._disk = disk
        self._queue: deque[Sending] = deque()
        self._is_taken = False
        self._full: FullSockets | None = None

    async def send(self, sending: Sending) -> None:
        """Send a piece.

        Raises:
            OSError: the client is gone or takes nothing, or the file cannot be read, or is shorter than it was.
        """
        self._put(sending)
        if sending.done.done():
            sending.done.result()
            return
        try:
            await sending.done
        finally:
            if self._full is not None:
                self._full.forget(sending)

    def close(self) -> None:
        """Free what was opened to send; nothing may be sent any more."""
        if self._full is not None:
            self._full.close()
            self._full = None

    def _put(self, sending: Sending) -> None:
        """Have a slice sent at once, or when those before it have had theirs."""
        self._queue.append(sending)
        if not self._is_taken:
            self._take_turn()

    def _take_turn(self) -> None:
        self._is_taken = False
        while self._queue and not self._is_taken:
            sending = self._queue.popleft()
            if not sending.done.done():
                self._is_taken = True
                sending.loop.call_soon(self._take_turn)
                self._send_slice(sending)

    def _send_slice(self, sending: Sending) -> None:
        length = min(SLICE, sending.stop - sending.offset)
        if not _is_cached(sending.descriptor, sending.offset + length - 1):
            reading = sending.loop.run_in_executor(self._disk, _read_ahead, sending.descriptor, sending.offset, length)
            reading.add_done_callback(lambda read: self._has_read(sending, read))
            return
        try:
            count = os.sendfile(sending.socket, sending.descriptor, sending.offset, length)
        except BlockingIOError:
            self._await_room(sending)
            return
        except OSError as error:
            sending.fail(error)
            return
        sending.offset += count
        if not count:
            sending.fail(ConnectionError("the file is shorter than it was"))
        elif sending.offset == sending.stop:
            sending.done.set_result(None)
        elif count < length:
            self._await_room(sending)
        else:
            self._queue.append(sending)

    def _has_read(self, sending: Sending, read: asyncio.Future[None]) -> None:
        error = read.exception()
        if error is None:
            self._put(sending)
        else:
            sending.fail(error)

    def _await_room(self, sending: Sending) -> None:
        if self._full is None:
            self._full = FullSockets(sending.loop, self._put)
        self._full.add(sending)


class FullSockets:
    """Those who wait for room in their sockets.

    The event loop's own way, a writer that is added and removed, costs four times as much for each wait.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_room: Callable[[Sending], None]) -> None:
        """Have `on_room` told of each that has room."""
        self._loop = loop
        self._on_room = on_room
        self._epoll = select.epoll()
        self._known: set[int] = set()
        self._waiting: dict[int, tuple[float, Sending]] = {}
        self._watch: asyncio.TimerHandle | None = None
        loop.add_reader(self._epoll.fileno(), self._tell)

    def add(self, sending: Sending) -> None:
        """Wait for room for one, but not for ever."""
        if sending.socket in self._known:
            self._epoll.modify(sending.socket, _ROOM)
        else:
            self._epoll.register(sending.socket, _ROOM)
            self._known.add(sending.socket)
        self._waiting[sending.socket] = (self._loop.time(), sending)
        if self._watch is None:
            self._watch = self._loop.call_later(_STALLED_SECONDS, self._give_up)

    def forget(self, sending: Sending) -> None:
        """Wait no more for one whose socket is about to be closed."""
        if sending.socket in self._known:
            self._known.remove(sending.socket)
            self._waiting.pop(sending.socket, None)
            self._epoll.unregister(sending.socket)

    def close(self) -> None:
        """Wait for none any more."""
        if self._watch is not None:
            self._watch.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _tell(self) -> None:
        for socket, _ in self._epoll.poll(0):
            _, sending = self._waiting.pop(socket)
            self._on_room(sending)

    def _give_up(self) -> None:
        """Fail those that have waited for too long; the first in the row waits longest."""
        self._watch = None
        for since, sending in list(self._waiting.values()):
            left = since + _STALLED_SECONDS - self._loop.time()
            if left > 0:
                self._watch = self._loop.call_later(left, self._give_up)
                break
            sending.fail(ConnectionError("the client takes nothing"))


def _is_cached(descriptor: int, offset: int) -> bool:
    """Say whether a byte of a file is in memory: sendfile of one that is not would hold every client up."""
    try:
        os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True  # this file system cannot tell
    return True


def _read_ahead(descriptor: int, offset: int, length: int) -> None:
    """Bring a slice of a file into memory. Blocks."""
    for start in range(offset, offset + length, _READ):
        os.pread(descriptor, min(_READ, offset + length - start), start)
