"""Which failures are worth another attempt before the first byte, and when."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import tenacity

from mirror.oci.errors import Failure, RegistryError

_ATTEMPTS = 3
_LONGEST_WAIT = 3.0
_BUDGET_SECONDS = 8.0
_WORTH_IT = frozenset({Failure.SERVER, Failure.REFUSED, Failure.RESET, Failure.TOO_MANY})
_Result = TypeVar("_Result")


async def retrying(attempt: Callable[[], Awaitable[_Result]], count: Callable[[Failure], None]) -> _Result:
    """Return what `attempt` returns, trying it up to three times within a few seconds; `count` hears of each retry.

    Raises:
        RegistryError: the last attempt's.
    """
    retries = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(_is_worth_it),
        wait=_wait,
        stop=tenacity.stop_after_attempt(_ATTEMPTS) | tenacity.stop_before_delay(_BUDGET_SECONDS),
        before_sleep=lambda state: _report(state, count),
        reraise=True,
    )

    async def call() -> _Result:
        return await attempt()

    return await retries(call)


def _is_worth_it(error: BaseException) -> bool:
    if not isinstance(error, RegistryError) or error.failure not in _WORTH_IT:
        return False
    # A limit that lasts longer than a client waits is the client's to know of.
    return error.failure is not Failure.TOO_MANY or (error.retry_after or 0) <= _LONGEST_WAIT


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    jitter = tenacity.wait_random_exponential(multiplier=0.2, max=1.0)(state)
    if isinstance(error, RegistryError) and error.failure is Failure.TOO_MANY:
        return min(float(error.retry_after or 0) + jitter, _LONGEST_WAIT + 1)
    return jitter


def _report(state: tenacity.RetryCallState, count: Callable[[Failure], None]) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, RegistryError) and error.failure is not None:
        count(error.failure)
