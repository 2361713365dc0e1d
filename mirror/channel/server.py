"""The hub's end of the channel: answers doors of other processes over a Unix socket."""

from __future__ import annotations

import asyncio
import itertools
import math
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from mirror.channel import wire
from mirror.channel.protocol import Hub, Stream
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.oci.reference import parse_reference

# A number of another connection must not name a stream of this one.
_NUMBER_BITS = 48


class HubServer:
    """Listens for doors. What a door waits for ends with its connection; what it started does not."""

    def __init__(self, hub: Hub, path: Path, on_change: Callable[[int], None] = lambda _: None) -> None:
        """Prepare to listen at `path`; `on_change` is told how many doors are connected whenever that changes."""
        self._hub = hub
        self._path = path
        self._on_change = on_change
        self._server: asyncio.Server
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen, in the place of a hub that died.

        Raises:
            OSError: the path cannot be had.
        """
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=2**20)

    async def drained(self, seconds: float) -> None:
        """Wait until every door has gone, for so many seconds at most."""
        if self._connections:
            await asyncio.wait(self._connections, timeout=None if math.isinf(seconds) else seconds)

    async def stop(self) -> None:
        """Stop listening and end every connection."""
        self._server.close()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self._on_change(len(self._connections))
        connection = _Connection(self._hub, writer)
        try:
            while (payload := await wire.read_frame(reader)) is not None:
                connection.take(payload)
        except (ValueError, msgspec.DecodeError, msgspec.ValidationError) as error:
            structlog.get_logger("layover.channel").error("a door sent nonsense", error=str(error))
        except asyncio.CancelledError:
            pass
        finally:
            self._connections.discard(task)
            self._on_change(len(self._connections))
            await connection.close()


class _Connection:
    """One door."""

    def __init__(self, hub: Hub, writer: asyncio.StreamWriter) -> None:
        self._hub = hub
        self._writer = writer
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._streams: dict[int, Stream] = {}
        self._numbers = itertools.count(secrets.randbits(_NUMBER_BITS))
        self._decoder = msgspec.msgpack.Decoder(wire.Call | wire.Cancel, dec_hook=wire.revive)

    def take(self, payload: bytes) -> None:
        """Begin a call, or end one."""
        message = self._decoder.decode(payload)
        if isinstance(message, wire.Call):
            task = asyncio.create_task(self._answer(message))
            self._calls[message.number] = task
            task.add_done_callback(lambda _: self._calls.pop(message.number, None))
        elif message.number in self._calls:
            self._calls[message.number].cancel()

    async def close(self) -> None:
        """End what the door waited for."""
        calls = list(self._calls.values())
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls)
        for stream in self._streams.values():
            await stream.close()
        self._writer.close()

    async def _answer(self, call: wire.Call) -> None:
        try:
            value = await self._ask(call.question)
            reply = wire.Reply(call.number, msgspec.Raw(wire.encode(value)))
        except RegistryError as error:
            reply = wire.Reply(call.number, refusal=wire.Refusal.of(error))
        except Exception as error:  # noqa: BLE001 - a defect is told to whoever waits, who would wait for ever
            structlog.get_logger("layover.channel").error("a call met a defect", error=repr(error))
            reply = wire.Reply(call.number, refusal=wire.Refusal.of(_defect()))
        frame = wire.frame(reply)
        if len(frame) > wire.LONGEST_FRAME:
            frame = wire.frame(wire.Reply(call.number, refusal=wire.Refusal.of(_defect())))
        # No drain: a door has one call open for each stream it reads, and that alone bounds what waits here. Drained,
        # every answer would wait for the slowest.
        self._writer.write(frame)

    async def _ask(self, question: wire.Question) -> Any:
        hub = self._hub
        value: Any
        match question:
            case wire.AskManifest(repository, reference):
                value = await hub.manifest(repository, parse_reference(reference))
            case wire.Pulled(repository, digest):
                value = None
                await hub.pulled(repository, digest)
            case wire.AskBlob(repository, digest):
                value = await hub.blob(repository, digest)
            case wire.AskBlobSize(repository, digest):
                value = await hub.blob_size(repository, digest)
            case wire.AskProgress(fill, offset):
                value = await hub.progress(fill, offset)
            case wire.AskTags(repository, query):
                value = await hub.tags(repository, query)
            case wire.AskReferrers(repository, digest, query):
                value = await hub.referrers(repository, digest, query)
            case wire.Report(door, samples, used):
                value = None
                await hub.report(door, samples, {Digest(key): when for key, when in used.items()})
            case wire.AskChanges(seen):
                value = await hub.changes(seen)
            case _:
                value = await self._ask_for_sibling(question)
        return value

    async def _ask_for_sibling(
        self, question: wire.SiblingQuestion | wire.OpenStream | wire.ReadStream | wire.CloseStream
    ) -> Any:
        value: Any
        match question:
            case wire.AskSiblingBlob(asker, followers, digest):
                value = await self._hub.sibling_blob(asker, followers, digest)
            case wire.AskSiblingManifest(repository, digest):
                value = await self._hub.sibling_manifest(repository, digest)
            case wire.AskSiblingHas(digest, seconds):
                value = await self._hub.sibling_has(digest, seconds)
            case _:
                value = await self._stream_step(question)
        return value

    async def _stream_step(self, question: wire.OpenStream | wire.ReadStream | wire.CloseStream) -> Any:
        if isinstance(question, wire.OpenStream):
            opened = await self._hub.stream(question.repository, question.digest, question.start)
            number = next(self._numbers)
            self._streams[number] = opened
            return wire.StreamOpened(number, opened.size)
        stream = self._streams.get(question.stream)
        if stream is None:
            raise RegistryError(ErrorCode.UNAVAILABLE, "the stream has ended", retry_after=1)
        if isinstance(question, wire.ReadStream):
            return wire.StreamRead(await stream.read(), stream.size)
        del self._streams[question.stream]
        return await stream.close()


def _defect() -> RegistryError:
    return RegistryError(ErrorCode.UNAVAILABLE, "the mirror's hub failed; its log says how", retry_after=1)
