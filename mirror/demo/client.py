"""A small container client: it pulls one platform of an image through the mirror and believes no byte unhashed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import aiohttp
import msgspec

from mirror.oci import media_types
from mirror.oci.digest import Digest

Watch = Callable[[Digest, int, int], None]
"""Told of each piece of a blob: its digest, the bytes so far, the bytes in all."""

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=15.0)
_CONNECTIONS = 4


class PullError(Exception):
    """The pull did not succeed; the text says at which request and why."""


class Pulled(NamedTuple):
    """A finished pull: every one of `digests` bodies matched its digest; `size` in bytes.

    `cache_status` is what the mirror said of the tag (RFC 9211).
    """

    digests: int
    size: int
    seconds: float
    cache_status: str


async def pull(repository_url: str, tag: str, platform: str, watch: Watch) -> Pulled:
    """Pull as container engines do: tag → index → manifest of `platform` → config and layers, several at a time.

    `repository_url` is `http://host:port/v2/<repository>`.

    Raises:
        PullError: an answer other than 200, a lost connection, or content that is not what its digest says.
    """
    began = time.monotonic()
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, auto_decompress=False) as session:
        client = _Client(session, repository_url, watch)
        digest, cache_status = await client.resolve(tag)
        index = await client.manifest(digest)
        manifest = await client.manifest(_choose(index, platform))
        try:
            async with asyncio.TaskGroup() as blobs:
                for descriptor in (manifest["config"], *manifest["layers"]):
                    blobs.create_task(client.blob(Digest.parse(descriptor["digest"]), descriptor["size"]))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
    return Pulled(client.digests, client.size, time.monotonic() - began, cache_status)


class _Client:
    """The requests of one pull, and what they brought."""

    def __init__(self, session: aiohttp.ClientSession, repository_url: str, watch: Watch) -> None:
        self._session = session
        self._url = repository_url
        self._watch = watch
        self.digests = 0
        self.size = 0

    async def resolve(self, tag: str) -> tuple[Digest, str]:
        """Return the digest behind the tag, and the answer's Cache-Status."""
        async with self._ask("HEAD", f"manifests/{tag}") as answer:
            return Digest.parse(answer.headers["Docker-Content-Digest"]), answer.headers.get("Cache-Status", "")

    async def manifest(self, digest: Digest) -> dict[str, Any]:
        """Return a verified manifest or index."""
        async with self._ask("GET", f"manifests/{digest}") as answer:
            body = await answer.read()
        if Digest.of(body, digest.algorithm) != digest:
            raise PullError(f"manifest {digest} arrived with other bytes")
        self._verified(len(body))
        document: dict[str, Any] = msgspec.json.decode(body)
        return document

    async def blob(self, digest: Digest, size: int) -> None:
        """Receive a blob piece by piece, and verify it."""
        hasher = digest.hasher()
        received = 0
        async with self._ask("GET", f"blobs/{digest}") as answer:
            async for piece in answer.content.iter_any():
                hasher.update(piece)
                received += len(piece)
                self._watch(digest, received, size)
        if received != size or not digest.matches(hasher):
            raise PullError(f"blob {digest} arrived with other bytes")
        self._verified(size)

    @contextlib.asynccontextmanager
    async def _ask(self, method: str, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield a 200 answer; anything else that happens meanwhile is a PullError."""
        headers = {"Accept": ", ".join(media_types.ACCEPT)}
        try:
            async with self._session.request(method, f"{self._url}/{path}", headers=headers) as answer:
                if answer.status != 200:
                    raise PullError(f"{method} {path} was answered {answer.status} {(await answer.text())[:300]}")
                yield answer
        except (aiohttp.ClientError, TimeoutError) as error:
            raise PullError(f"{method} {path} broke off: {type(error).__name__} {error}") from error
        except (KeyError, ValueError) as error:
            raise PullError(f"the answer to {method} {path} cannot be used: {error!r}") from error

    def _verified(self, size: int) -> None:
        self.digests += 1
        self.size += size


def _choose(index: dict[str, Any], platform: str) -> Digest:
    for entry in index["manifests"]:
        if f"{entry['platform']['os']}/{entry['platform']['architecture']}" == platform:
            return Digest.parse(entry["digest"])
    raise PullError(f"the image has nothing for {platform}")
