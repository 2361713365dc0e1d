"""Which failures are worth another attempt before the first byte, and when."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import tenacity

from mirror.oci.errors import Failure
from mirror.source.upstream.failures import UpstreamError

_ATTEMPTS = 3
_QUICK_ATTEMPTS = 2
_QUICK = frozenset({Failure.SERVER, Failure.RESET})
_Result = TypeVar("_Result")


async def retrying(
    attempt: Callable[[], Awaitable[_Result]], count: Callable[[Failure], None], *, seconds: float, is_quick: bool
) -> _Result:
    """Return what `attempt` returns, trying it up to three times within `seconds`; `count` hears of each retry.

    `is_quick`: whoever waits can be answered otherwise, so that it is tried again once at most, and at once.

    Raises:
        RegistryError: the last attempt's.
    """
    retries = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(_is_worth_it_quickly if is_quick else _is_worth_it),
        wait=tenacity.wait_none() if is_quick else _wait,
        stop=tenacity.stop_after_attempt(_QUICK_ATTEMPTS if is_quick else _ATTEMPTS)
        | tenacity.stop_before_delay(seconds),
        before_sleep=lambda state: _report(state, count),
        reraise=True,
    )

    async def call() -> _Result:
        return await attempt()

    return await retries(call)


def _is_worth_it(error: BaseException) -> bool:
    return isinstance(error, UpstreamError) and error.is_passing


def _is_worth_it_quickly(error: BaseException) -> bool:
    return isinstance(error, UpstreamError) and error.is_passing and error.failure in _QUICK and not error.wait


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    jitter = tenacity.wait_random_exponential(multiplier=0.2, max=1.0)(state)
    if isinstance(error, UpstreamError) and error.wait is not None:
        return error.wait + jitter
    # A limit that does not say how long it lasts is one of requests a second, most often.
    return jitter + (2.0 ** (state.attempt_number - 1) if _is_limit(error) else 0.0)


def _is_limit(error: BaseException | None) -> bool:
    return isinstance(error, UpstreamError) and error.failure is Failure.TOO_MANY


def _report(state: tenacity.RetryCallState, count: Callable[[Failure], None]) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, UpstreamError) and error.failure is not None:
        count(error.failure)
