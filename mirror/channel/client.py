"""A door's end of the channel: the hub behind a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from mirror.channel import wire
from mirror.channel.protocol import BlobFound, Body, Changes, Filling, Listing, ManifestFound, Progress, Whole
from mirror.channel.shown import Shown
from mirror.observe.metrics import Sample
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Reference, Repository
from mirror.oci.use import Use

_PATIENCE_SECONDS = 5.0
_RECONNECT_SECONDS = 0.05
_Value = TypeVar("_Value")


class HubLost(RegistryError):
    """The hub's process has gone; its parent brings it back within a second or so."""

    def __init__(self) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, "the mirror's hub is restarting", failure=Failure.RESET, retry_after=1)


class HubAbsent(HubLost):
    """There is no hub to ask, and none came back while a call waited."""


class RemoteHub:
    """Implements the channel's Protocol over one connection, made anew when it breaks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[asyncio.StreamWriter, asyncio.Future[msgspec.Raw]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()
        self._is_closed = False
        self._is_patient = True
        self._decoder = msgspec.msgpack.Decoder(wire.Reply)
        self._shown = Shown(self._ask_progress)

    async def close(self) -> None:
        """Give the connection up, for good."""
        self._is_closed = True
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading

    def expect_no_return(self) -> None:
        """Wait for a hub that is away no more: while the replica ends, none is started."""
        self._is_patient = False

    async def manifest(self, repository: Repository, reference: Reference) -> ManifestFound:
        """See `Hub`."""
        return await self._call_again(wire.AskManifest(repository, reference), ManifestFound)

    async def pulled(self, repository: Repository, digest: Digest) -> None:
        """See `Hub`."""
        await self._call(wire.Pulled(repository, digest), type(None))

    async def blob(self, repository: Repository, digest: Digest) -> Body:
        """See `Hub`."""
        return await self._call_again(wire.AskBlob(repository, digest), Body)  # type: ignore[arg-type]

    async def blob_size(self, repository: Repository, digest: Digest) -> BlobFound:
        """See `Hub`."""
        return await self._call_again(wire.AskBlobSize(repository, digest), BlobFound)

    async def progress(self, fill: int, offset: int) -> Progress:
        """See `Hub`."""
        return await self._shown.progress(fill, offset)

    async def stream(self, repository: Repository, digest: Digest, start: int) -> _RemoteStream:
        """See `Hub`."""
        opened = await self._call_again(wire.OpenStream(repository, digest, start), wire.StreamOpened)
        return _RemoteStream(self, opened)

    async def tags(self, repository: Repository, query: str) -> Listing:
        """See `Hub`."""
        return await self._call_again(wire.AskTags(repository, query), Listing)

    async def referrers(self, repository: Repository, digest: Digest, query: str) -> Listing:
        """See `Hub`."""
        return await self._call_again(wire.AskReferrers(repository, digest, query), Listing)

    async def sibling_blob(self, asker: str, followers: Sequence[str], digest: Digest) -> Whole | Filling | None:
        """See `Hub`."""
        question = wire.AskSiblingBlob(asker, list(followers), digest)
        return await self._call(question, Whole | Filling | None)  # type: ignore[arg-type]

    async def sibling_manifest(self, repository: Repository, digest: Digest) -> ManifestFound | None:
        """See `Hub`."""
        question = wire.AskSiblingManifest(repository, digest)
        return await self._call(question, ManifestFound | None)  # type: ignore[arg-type]

    async def sibling_has(self, digest: Digest, seconds: float) -> bool:
        """See `Hub`."""
        return await self._call(wire.AskSiblingHas(digest, seconds), bool)

    async def report(self, door: str, samples: Sequence[Sample], used: Mapping[Digest, Use]) -> None:
        """See `Hub`."""
        await self._call(wire.Report(door, list(samples), {str(key): use for key, use in used.items()}), type(None))

    async def changes(self, seen: str) -> Changes:
        """See `Hub`."""
        return await self._call(wire.AskChanges(seen), Changes)

    async def read(self, stream: int) -> wire.StreamRead:
        """Return the next bytes of a stream."""
        return await self._call(wire.ReadStream(stream), wire.StreamRead)

    async def close_stream(self, stream: int) -> None:
        """Tell the hub that a stream is no longer read."""
        with contextlib.suppress(RegistryError):
            await self._call(wire.CloseStream(stream), type(None))

    async def _ask_progress(self, fill: int, offset: int) -> Progress:
        try:
            return await self._call(wire.AskProgress(fill, offset), Progress)
        except HubLost:
            return Progress(offset, is_forgotten=True)

    async def _call_again(self, question: wire.Question, kind: type[_Value]) -> _Value:
        """Ask what can be asked twice; a hub that dies meanwhile is asked again when it is back."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_SECONDS
        while True:
            try:
                return await self._call(question, kind)
            except HubAbsent:
                raise
            except HubLost:
                if loop.time() > deadline:
                    raise
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _call(self, question: wire.Question, kind: type[_Value]) -> _Value:
        number = next(self._numbers)
        writer = await self._connected()
        answered: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (writer, answered)
        try:
            writer.write(wire.frame(wire.Call(number, question)))
            await writer.drain()
            value: _Value = msgspec.msgpack.decode(await answered, type=kind, dec_hook=wire.revive)
            return value
        except ConnectionError:
            self._give_up(writer)
            raise HubLost from None
        except asyncio.CancelledError:
            writer.write(wire.frame(wire.Cancel(number)))
            raise
        finally:
            self._waiting.pop(number, None)
            if answered.done() and not answered.cancelled():
                answered.exception()  # seen, even if the call ended otherwise

    async def _connected(self) -> asyncio.StreamWriter:
        """Return the connection, waiting a little for a hub that is coming back."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
        async with self._connecting:
            while self._writer is None:
                if self._is_closed:
                    raise HubAbsent
                try:
                    reader, self._writer = await asyncio.open_unix_connection(self._path, limit=2**20)
                    self._reading = asyncio.create_task(self._read(reader, self._writer))
                except OSError:
                    if not self._is_patient or asyncio.get_running_loop().time() > deadline:
                        raise HubAbsent from None
                    await asyncio.sleep(_RECONNECT_SECONDS)
            return self._writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (payload := await wire.read_frame(reader)) is not None:
                self._take(payload)
        finally:
            self._give_up(writer)
            for asked, answered in self._waiting.values():
                if asked is writer and not answered.done():
                    answered.set_exception(HubLost())

    def _give_up(self, writer: asyncio.StreamWriter) -> None:
        if self._writer is writer:
            self._writer = None
            self._shown.forget()
        writer.close()

    def _take(self, payload: bytes) -> None:
        reply = self._decoder.decode(payload)
        _, answered = self._waiting.get(reply.number, (None, None))
        if answered is None or answered.done():
            return
        if reply.refusal is not None:
            answered.set_exception(reply.refusal.revive())
        else:
            answered.set_result(reply.value)


class _RemoteStream:
    """A stream that the hub holds open for this door."""

    def __init__(self, hub: RemoteHub, opened: wire.StreamOpened) -> None:
        self._hub = hub
        self._number = opened.stream
        self.size = opened.size

    async def read(self) -> bytes:
        """See `Stream`."""
        answer = await self._hub.read(self._number)
        self.size = answer.size
        return answer.data

    async def close(self) -> None:
        """See `Stream`."""
        await self._hub.close_stream(self._number)
