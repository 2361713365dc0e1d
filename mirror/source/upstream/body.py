"""Bodies of answers, read whole within bounds of size and time."""

from __future__ import annotations

import asyncio

import aiohttp

from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.source.upstream import failures
from mirror.source.upstream.ask import Ask

BODY_SECONDS = 30.0


async def read(answer: aiohttp.ClientResponse, ask: Ask, longest: int) -> bytes:
    """Return an answer's whole body, and release it.

    Raises:
        RegistryError: it broke off, or is longer than `longest` bytes.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS), answer:
            body = await read_at_most(answer, longest)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise failures.unreachable(ask.upstream, answer.url.authority, failures.failure_of(error)) from None
    if body is None:
        text = f"upstream {ask.upstream.name} answered with more than {longest} bytes"
        raise RegistryError(ErrorCode.UNAVAILABLE, text, failure=Failure.SERVER, retry_after=failures.RETRY_AFTER)
    return body


async def read_at_most(answer: aiohttp.ClientResponse, longest: int) -> bytes | None:
    """Return a body, None if it is longer than `longest` bytes."""
    pieces = bytearray()
    async for piece in answer.content.iter_any():
        pieces += piece
        if len(pieces) > longest:
            return None
    return bytes(pieces)
