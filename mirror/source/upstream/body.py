"""Bodies of answers, read whole within bounds of size and time."""

from __future__ import annotations

import asyncio

import aiohttp

from mirror.source.upstream import failures
from mirror.source.upstream.ask import Ask

# Whoever waits shall hear within 10 s.
BODY_SECONDS = 8.5


async def read(answer: aiohttp.ClientResponse, ask: Ask, longest: int) -> bytes:
    """Return an answer's whole body within what is left of the request's time, and release it.

    Raises:
        RegistryError: it broke off, or is longer than `longest` bytes.
    """
    left = ask.seconds_left
    try:
        async with asyncio.timeout(BODY_SECONDS if left is None else left), answer:
            body = await read_at_most(answer, longest)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise failures.unreachable(ask.upstream, answer.url.authority, failures.failure_of(error)) from None
    if body is None:
        raise failures.unusable(ask.upstream, f"answered with more than {longest} bytes", answer.status)
    return body


async def read_at_most(answer: aiohttp.ClientResponse, longest: int) -> bytes | None:
    """Return a body, None if it is longer than `longest` bytes."""
    pieces = bytearray()
    async for piece in answer.content.iter_any():
        pieces += piece
        if len(pieces) > longest:
            return None
    return bytes(pieces)


def left_over(content: aiohttp.StreamReader) -> bytes:
    """Take what arrived before the connection broke.

    aiohttp raises the error first and would lose these bytes: they would be fetched twice.
    """
    pieces = b"".join(content._buffer)[content._buffer_offset :]  # noqa: SLF001
    content._buffer.clear()  # noqa: SLF001
    content._buffer_offset = 0  # noqa: SLF001
    return pieces
