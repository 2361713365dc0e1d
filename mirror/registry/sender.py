"""Files on their way into sockets, past the transports: a slice a turn, so that downloads starve nobody."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from concurrent.futures import Executor

from mirror.pull import FilePiece

SLICE = 2 * 2**20
_READ = 256 * 2**10
_STALLED_SECONDS = 300.0


class Sending:
    """A piece of a file on its way into a socket; the bytes before `offset` have left."""

    def __init__(self, socket: int, piece: FilePiece) -> None:
        """Prepare to send; both descriptors have to stay open until `done`, whatever its outcome."""
        self.socket = socket
        self.descriptor, self.offset, self.stop = piece
        self.watch: asyncio.TimerHandle | None = None
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
            sending.loop.remove_writer(sending.socket)
            if sending.watch is not None:
                sending.watch.cancel()

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
        sending.loop.add_writer(sending.socket, self._has_room, sending)
        sending.watch = sending.loop.call_later(
            _STALLED_SECONDS, sending.fail, ConnectionError("the client takes nothing")
        )

    def _has_room(self, sending: Sending) -> None:
        sending.loop.remove_writer(sending.socket)
        if sending.watch is not None:
            sending.watch.cancel()
        self._put(sending)


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
