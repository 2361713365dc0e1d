"""The processes of a replica: one that is hub and door, or a parent with a hub and several doors as its children."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog

from mirror.app import DoorApp, HubApp, Pools, Replica
from mirror.config import Settings
from mirror.oci.errors import LayoverError

_SHORTEST_LIFE = 1.0
_PAUSE = 0.2


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code; a second signal ends the process at once.

    Raises:
        ConfigError: a file that the configuration names cannot be used.
        StoreError: the store cannot be used.
        OSError: an address cannot be had.
    """
    if settings.server.workers <= 1:
        _run(Replica(settings).run)
        return 0
    with tempfile.TemporaryDirectory(prefix="layover-") as folder:
        return Parent(settings, Path(folder) / "hub").run()


class Parent:
    """Keeps one hub and several doors running. It serves nothing itself, so that nothing can end it but a signal."""

    def __init__(self, settings: Settings, socket: Path) -> None:
        """Prepare to run the children, which meet at `socket`."""
        self._settings = settings
        self._socket = socket
        self._children: dict[int, tuple[str, float]] = {}
        self._is_stopping = False
        self._log = structlog.get_logger("layover.workers")

    def run(self) -> int:
        """Run until a signal asks for the end; return the exit code."""
        for which in (signal.SIGTERM, signal.SIGINT):
            signal.signal(which, lambda *_: self._stop())
        self._start("hub")
        for _ in range(self._settings.server.workers):
            self._start("door")
        code = 0
        while self._children:
            try:
                pid, status = os.wait()
            except InterruptedError:
                continue
            kind, born = self._children.pop(pid)
            ended = os.waitstatus_to_exitcode(status)
            if self._is_stopping:
                self._when_doors_ended()
            elif ended > 0 and time.monotonic() - born < _SHORTEST_LIFE:
                # It said why on standard error; starting it again would say the same.
                code = ended
                self._stop()
            else:
                self._log.error("a process ended and is started again", process=kind, pid=pid, ended=ended)
                time.sleep(0 if time.monotonic() - born > _SHORTEST_LIFE else _PAUSE)
                self._start(kind)
        return code

    def _start(self, kind: str) -> None:
        pid = os.fork()
        if pid:
            self._children[pid] = (kind, time.monotonic())
            return
        code = 1
        try:
            for which in (signal.SIGTERM, signal.SIGINT):
                signal.signal(which, signal.SIG_DFL)
            self._be(kind)
            code = 0
        except LayoverError as error:
            sys.stderr.write(f"layover: {error}\n")
            code = 2
        except OSError as error:
            sys.stderr.write(f"layover: {error.strerror or error}\n")
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _be(self, kind: str) -> None:
        if kind == "hub":
            hub = HubApp(self._settings, Pools())
            _run(lambda stopping: hub.run(stopping, self._socket))
        else:
            door = DoorApp(self._settings, self._socket)
            _run(door.run)

    def _stop(self) -> None:
        """Ask the doors to end; the hub goes last, as their streams need it."""
        self._is_stopping = True
        self._signal("door")
        self._when_doors_ended()

    def _when_doors_ended(self) -> None:
        if all(kind != "door" for kind, _ in self._children.values()):
            self._signal("hub")

    def _signal(self, kind: str) -> None:
        for pid, (each, _) in self._children.items():
            if each == kind:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)


def _run(serve_until: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run a part of the replica until a signal asks for its end."""

    async def serving() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()

        def stop(which: signal.Signals) -> None:
            stopping.set()
            loop.remove_signal_handler(which)

        for which in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(which, stop, which)
        await serve_until(stopping)

    asyncio.run(serving())
