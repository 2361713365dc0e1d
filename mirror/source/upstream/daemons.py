"""Threads that nobody waits for in the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class DaemonThreads(Executor):
    """One thread a call: a call that hangs takes nobody's turn, and does not keep the process from ending.

    Whoever submits bounds how many run at a time.
    """

    def submit(
        self, call: Callable[_Arguments, _Result], /, *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> Future[_Result]:
        """Run `call` at once.

        Raises:
            RuntimeError: there is no room for another thread.
        """
        future: Future[_Result] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = call(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - whoever waits for the future gets it
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=run, name="daemon", daemon=True).start()
        return future
