"""How long the fleet may be waited for."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

MOST_SECONDS = 0.25
# A loop that was busy must not take others for slow: its time counts in steps, one for each turn that it had.
_STEPS = 5
_Parameters = ParamSpec("_Parameters")
_Answer = TypeVar("_Answer")


class _Allowance:
    """What is left of it; shared by all tasks that a request starts."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MOST_SECONDS


_ALLOWANCE: ContextVar[_Allowance | None] = ContextVar("allowance", default=None)


@contextlib.contextmanager
def allowance() -> Iterator[None]:
    """Let all waiting for the fleet inside add up to at most 250 ms.

    Without one each single wait may take that. Tasks started inside share it, unless they begin one of their own.
    """
    token = _ALLOWANCE.set(_Allowance())
    try:
        yield
    finally:
        _ALLOWANCE.reset(token)


def within_allowance(
    answer: Callable[_Parameters, Coroutine[Any, Any, _Answer]],
) -> Callable[_Parameters, Coroutine[Any, Any, _Answer]]:
    """Give each call of an asynchronous function an allowance of its own."""

    @functools.wraps(answer)
    async def wrapped(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Answer:
        with allowance():
            return await answer(*args, **kwargs)

    return wrapped


def seconds_left() -> float:
    """Return for how many seconds the fleet may still be waited for."""
    granted = _ALLOWANCE.get()
    return MOST_SECONDS if granted is None else granted.left


@contextlib.contextmanager
def spending() -> Iterator[None]:
    """Take the time that passes inside from what is left."""
    granted, began = _ALLOWANCE.get(), time.monotonic()
    try:
        yield
    finally:
        if granted is not None:
            granted.left = max(0.0, granted.left - (time.monotonic() - began))


@contextlib.contextmanager
def free_if_answered() -> Iterator[None]:
    """Leave what is left as it is, unless this ends with an error: whoever looks again waits for another replica."""
    granted, left = _ALLOWANCE.get(), seconds_left()
    yield
    if granted is not None:
        granted.left = left


async def done_within(waited: asyncio.Future[Any], seconds: float) -> bool:
    """Wait for something, and tell whether it is done; it goes on if not."""
    for _ in range(_STEPS):
        if waited.done() or seconds <= 0:
            break
        await asyncio.wait((waited,), timeout=seconds / _STEPS)
    return waited.done()
