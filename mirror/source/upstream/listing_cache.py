"""What upstreams answered to listings, kept as JSON in a small folder of the store, behind aiohttp-client-cache."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog
from aiohttp.typedefs import StrOrURL
from aiohttp_client_cache.backends.base import BaseCache, CacheBackend
from aiohttp_client_cache.response import CachedResponse

from mirror.config.units import Size

LONGEST_ENTRY = 8 * 2**20
MOST_BYTES = 64 * 2**20
SHARE_OF_STORE = 64
_BLOCK = 4096
_SUFFIX = ".json"
_SECONDS_BETWEEN_COMPLAINTS = 60.0
_Result = TypeVar("_Result")


class ListingCache(CacheBackend):
    """The library's cache, with a key and a storage of our own.

    Nothing in it expires: how long an answer is fresh, and whether it may stand in for an upstream that fails, is the
    hub's to say. Nothing that goes wrong with it is an error: what cannot be read is not there.
    """

    def __init__(self, folder: Path, store_size: Size) -> None:
        """Keep answers under `folder`, within a small part of a store of `store_size`."""
        super().__init__(cache_name="listings", allowed_methods=("GET",), allowed_codes=(200,))
        self.responses: ListingFiles = ListingFiles(folder, store_size)

    async def close(self) -> None:
        """Give the files up."""
        await self.responses.close()

    def create_key(
        self, method: str, url: StrOrURL, *, headers: Mapping[str, str] | None = None, scope: str = "", **_: Any
    ) -> str:
        """Return the key of a request by a caller whose credentials are named, not told, by `scope`.

        The URL counts byte by byte: what a cursor means is the registry's to know.
        """
        accept = (headers or {}).get("Accept", "")
        normal = ",".join(sorted({each.strip().lower() for each in accept.split(",")}))
        whole = hashlib.sha256()
        for part in (method.upper(), str(url), normal, scope):
            encoded = part.encode(errors="surrogateescape")
            whole.update(len(encoded).to_bytes(8, "big") + encoded)
        return whole.hexdigest()

    async def keep(self, key: str, response: CachedResponse) -> bool:
        """Keep an answer unless a newer one is kept already, and say whether there is one now."""
        known = await self.get_response(key)
        if known is None or made_at(known) <= made_at(response):
            await self.responses.write(key, response)
        return await self.responses.contains(key)

    async def forget(self, is_meant: Callable[[CachedResponse], bool]) -> None:
        """Forget the answers that are meant."""
        await self.responses.forget(is_meant)


class ListingFiles(BaseCache):
    """One file an answer, handled by one thread; those not used for longest go when there are too many bytes."""

    def __init__(self, folder: Path, store_size: Size) -> None:
        super().__init__(serializer=_Json())
        self._folder = folder
        self._store_size = store_size
        self._thread = ThreadPoolExecutor(1, "listings")
        self._limit = 0
        self._used = 0
        self._sizes: dict[str, int] = {}  # key → bytes on disk, in the order of use
        self._is_open = False
        self._complained_at = 0.0

    async def close(self) -> None:
        """Give the thread up without waiting for a disk that hangs."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def contains(self, key: str) -> bool:
        """Say whether an answer is kept under a key."""
        return await self._in_thread(lambda: key in self._sizes, otherwise=False)

    async def read(self, key: str) -> CachedResponse | None:
        """Return the answer under a key."""
        return await self._in_thread(lambda: self._read(key), otherwise=None)

    async def write(self, key: str, item: CachedResponse | bytes | str | None) -> None:
        """Keep an answer, in the place of the one before and of those not used for longest."""
        await self._in_thread(lambda: self._write(key, self.serialize(item) or b""), otherwise=None)

    async def delete(self, key: str) -> None:
        """Forget an answer, if it is there."""
        await self._in_thread(lambda: self._delete(key), otherwise=None)

    async def forget(self, is_meant: Callable[[CachedResponse], bool]) -> None:
        """Forget the answers that are meant."""

        def forget() -> None:
            for key in list(self._sizes):
                found = self._read(key)
                if found is not None and is_meant(found):
                    self._delete(key)

        await self._in_thread(forget, otherwise=None)

    async def bulk_delete(self, keys: set[str]) -> None:
        """Forget answers."""
        for key in keys:
            await self.delete(key)

    async def clear(self) -> None:
        """Forget every answer."""
        await self.bulk_delete({key async for key in self.keys()})

    async def size(self) -> int:
        """Return how many answers are kept."""
        return await self._in_thread(lambda: len(self._sizes), otherwise=0)

    async def keys(self) -> AsyncIterator[str]:
        """Yield every key."""
        nothing: list[str] = []
        for key in await self._in_thread(lambda: list(self._sizes), otherwise=nothing):
            yield key

    async def values(self) -> AsyncIterator[CachedResponse | None]:
        """Yield every answer."""
        async for key in self.keys():
            yield await self.read(key)

    async def _in_thread(self, work: Callable[[], _Result], *, otherwise: _Result) -> _Result:
        def run() -> _Result:
            try:
                self._open()
                return work()
            except OSError as error:
                self._is_open = False
                self._complain(error)
                return otherwise

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    def _complain(self, error: OSError) -> None:
        if time.monotonic() - self._complained_at > _SECONDS_BETWEEN_COMPLAINTS or not self._complained_at:
            self._complained_at = time.monotonic()
            log = structlog.get_logger("layover.source")
            log.warning("listings cannot be kept", folder=str(self._folder), error=error.strerror or str(error))

    def _open(self) -> None:
        """Look at what an earlier run left, the oldest first."""
        if self._is_open:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        found = []
        for file in self._folder.iterdir():
            if file.suffix == _SUFFIX:
                facts = file.stat()
                found.append((facts.st_mtime, file.stem, _on_disk(facts.st_size)))
            elif file.is_file():
                file.unlink()
        self._sizes = {key: size for _, key, size in sorted(found)}
        self._used = sum(self._sizes.values())
        self._limit = min(MOST_BYTES, self._store_size.of(shutil.disk_usage(self._folder).total) // SHARE_OF_STORE)
        self._is_open = True

    def _read(self, key: str) -> CachedResponse | None:
        if key not in self._sizes:
            return None
        item = None
        with contextlib.suppress(OSError, ValueError, OverflowError, msgspec.MsgspecError):
            item = self.deserialize(self._file(key).read_bytes())
        if not isinstance(item, CachedResponse):
            self._delete(key)
            return None
        self._sizes[key] = self._sizes.pop(key)
        return item

    def _write(self, key: str, data: bytes) -> None:
        size = _on_disk(len(data))
        if len(data) > LONGEST_ENTRY or size > self._limit:
            self._delete(key)
            return
        fresh = self._folder / uuid.uuid4().hex
        try:
            fresh.write_bytes(data)
            fresh.replace(self._file(key))
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise
        self._used += size - self._sizes.pop(key, 0)
        self._sizes[key] = size
        while self._used > self._limit:
            self._delete(next(iter(self._sizes)))

    def _delete(self, key: str) -> None:
        self._file(key).unlink(missing_ok=True)
        self._used -= self._sizes.pop(key, 0)

    def _file(self, key: str) -> Path:
        return self._folder / f"{key}{_SUFFIX}"


class _Entry(msgspec.Struct):
    """A kept answer as JSON; names and values of headers are text, whatever bytes they were."""

    url: str
    created_at: float
    headers: list[tuple[str, str]]
    body: bytes


class _Json:
    """What the library calls a serializer; its own would unpickle whatever lies in a folder."""

    def dumps(self, response: CachedResponse) -> bytes:
        """Return an answer as JSON."""
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers]
        return msgspec.json.encode(_Entry(str(response.url), made_at(response), headers, body_of(response)))

    def loads(self, data: bytes) -> CachedResponse:
        """Return the answer that JSON tells of.

        Raises:
            msgspec.MsgspecError: it is no JSON of an answer.
            ValueError, OverflowError: a value in it makes no sense.
        """
        entry = msgspec.json.decode(data, type=_Entry)
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in entry.headers]
        return cached_response(entry.url, headers, entry.body, entry.created_at)


def cached_response(url: str, headers: Iterable[tuple[bytes, bytes]], body: bytes, created_at: float) -> CachedResponse:
    """Return the library's value for an answer 200 to a GET, made at `created_at` in seconds since the epoch."""
    moment = datetime.fromtimestamp(created_at, UTC).replace(tzinfo=None)
    return CachedResponse("GET", "OK", 200, url, "1.1", body=body, raw_headers=tuple(headers), created_at=moment)


def made_at(response: CachedResponse) -> float:
    """Return when an answer was made, in seconds since the epoch."""
    return response.created_at.replace(tzinfo=UTC).timestamp()


def body_of(response: CachedResponse) -> bytes:
    """Return an answer's whole body."""
    body: bytes = response._body  # noqa: SLF001 - the library reads it through a coroutine only
    return body


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
