"""Bytes of a file on their way to a client, counted one by one, and every way in which that can go wrong."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from tests.upstream.counters import Span
from tests.upstream.pipes import Pipe, PlainPipe, SecurePipe
from tests.upstream.site import Pace, Site

_SLICE = 2**18
_CRAWL = 2**12


class RawResponse(web.StreamResponse):
    """Headers as given; the body, its length and its framing are the sender's own business."""

    _length_check = False


@dataclass(frozen=True)
class Transfer:
    """What one answer sends: `span` of the file; and `extra` zero bytes after it, beyond the announced length."""

    path: Path
    digest: str
    span: Span
    chunked: bool
    close: bool
    extra: int
    faulty: bool
    """Whether the dials for cuts, stalls and rates act on it."""


class Sender:
    """Sends transfers; an answer ends after exactly the byte that it should."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def send(self, request: web.BaseRequest, response: RawResponse, transfer: Transfer) -> web.StreamResponse:
        """Send headers and body; return once the kernel has all of it, or once the connection was cut."""
        transport = request.transport
        if transport is None:
            return response
        transport.set_write_buffer_limits(1, 0)
        writer = await response.prepare(request)
        if writer is None:
            return response
        await writer.drain()
        connection = transport.get_extra_info("socket").dup()
        answer = self._site.counters.answer(transfer.digest, connection, transfer.span)
        secure = transport.get_extra_info("sslcontext") is not None
        pipe = SecurePipe(transport, writer, answer) if secure else PlainPipe(connection, answer)
        try:
            complete = await self._body(pipe, transfer)
        except (BrokenPipeError, ConnectionResetError):
            complete = False
        finally:
            answer.end()
            connection.close()
        if not complete:
            self._end(transport)
        elif transfer.close or transfer.extra:
            transport.write(bytes(transfer.extra))
            transport.close()
        return response

    async def _body(self, pipe: Pipe, transfer: Transfer) -> bool:
        """Send the body; False when it was cut before its end."""
        total = transfer.span.end - transfer.span.start
        stop = self._stop(transfer, total)
        stall = self._stall(transfer, total)
        crawls = self._crawls(transfer)
        pace, sent = Pace(), 0
        with transfer.path.open("rb") as file:
            while sent < stop:
                if stall is not None and sent >= stall:
                    await self._wait()
                    stall = None
                longest = _CRAWL // 10 if crawls else self._slice(transfer)
                target = min(stop, sent + longest, stop if stall is None else stall)
                if transfer.chunked:
                    await pipe.write(b"%x\r\n" % (target - sent))
                await pipe.send(file.fileno(), transfer.span.start + sent, target - sent)
                if transfer.chunked:
                    await pipe.write(b"\r\n")
                await asyncio.sleep(0)
                if crawls:
                    await pace.wait(target - sent, _CRAWL)
                await self._slow(pace, target - sent, transfer)
                sent = target
        if stop == total and transfer.chunked:
            await pipe.write(b"0\r\n\r\n")
        return stop == total

    def _stop(self, transfer: Transfer, total: int) -> int:
        dials = self._site.dials
        stop = total + min(0, dials.blob_extra) if transfer.faulty else total
        if not transfer.faulty or dials.blob_cut is None or dials.blob_cut >= stop or dials.blob_cut_times == 0:
            return max(0, stop)
        if dials.blob_cut_times is not None:
            dials.blob_cut_times -= 1
        return dials.blob_cut

    def _stall(self, transfer: Transfer, total: int) -> int | None:
        dials = self._site.dials
        if not transfer.faulty or dials.blob_stall is None or dials.blob_stall >= total or dials.blob_stall_times == 0:
            return None
        if dials.blob_stall_times is not None:
            dials.blob_stall_times -= 1
        return dials.blob_stall

    def _crawls(self, transfer: Transfer) -> bool:
        crawls = transfer.faulty and self._site.dials.blob_crawl_times > 0
        self._site.dials.blob_crawl_times -= crawls
        return crawls

    async def _wait(self) -> None:
        try:
            await asyncio.wait_for(self._site.release.wait(), self._site.dials.blob_stall_seconds)
        except TimeoutError:
            return

    def _slice(self, transfer: Transfer) -> int:
        dials = self._site.dials
        rates = [rate for rate in (dials.blob_rate, dials.blob_rate_total) if rate is not None and transfer.faulty]
        return max(1, min([_SLICE, *(rate // 50 for rate in rates)]))

    async def _slow(self, pace: Pace, count: int, transfer: Transfer) -> None:
        dials = self._site.dials
        if transfer.faulty and dials.blob_rate is not None:
            await pace.wait(count, dials.blob_rate)
        if transfer.faulty and dials.blob_rate_total is not None:
            await self._site.pace.wait(count, dials.blob_rate_total)

    def _end(self, transport: asyncio.Transport) -> None:
        if self._site.dials.blob_cut_reset:
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            transport.abort()
        else:
            transport.close()
