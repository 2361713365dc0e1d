"""Waiting for a thread to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

_Result = TypeVar("_Result")


async def finished(pool: Executor, call: Callable[[], _Result]) -> _Result:
    """Return what `call` returns from a thread of `pool`.

    Whoever is cancelled meanwhile still waits for the thread: it uses files that would be closed under it.
    """
    running = asyncio.get_running_loop().run_in_executor(pool, call)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise
