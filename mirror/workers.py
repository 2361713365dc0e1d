"""The processes of a replica: one that is hub and door, or a parent with a hub and several doors as its children."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog

from mirror.app import DoorApp, HubApp, Pools, Replica
from mirror.config import Settings
from mirror.config.units import Address
from mirror.oci.errors import LayoverError

_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
_PR_SET_PDEATHSIG = 1
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
        self._proven: set[str] = set()
        self._is_stopping = False
        self._log = structlog.get_logger("layover.workers")

    def run(self) -> int:
        """Run until a signal asks for the end; return the exit code.

        Raises:
            OSError: the data port is in use.
        """
        for address in self._settings.server.listen:
            _check_free(address)
        for which in _SIGNALS:
            signal.signal(which, lambda *_: self._stop())
        self._start("hub")
        for _ in range(self._settings.server.workers):
            self._start("door")
        code = 0
        while self._children:
            pid, status = os.wait()
            kind, born = self._children.pop(pid, ("", 0.0))
            if not kind:
                continue  # as process 1 of a container one inherits strangers
            ended = os.waitstatus_to_exitcode(status)
            lived = time.monotonic() - born
            if self._socket.exists() if kind == "hub" else lived > _SHORTEST_LIFE:
                self._proven.add(kind)  # it served: what ends the next one may pass
            if not self._is_stopping and ended > 0 and kind not in self._proven:
                # It said why on standard error; starting it again would say the same.
                code = ended
                self._stop()
            elif not self._is_stopping:
                self._log.error("a process ended and is started again", process=kind, pid=pid, ended=ended)
                time.sleep(0 if lived > _SHORTEST_LIFE else _PAUSE)
                self._start(kind)
        return code

    def _start(self, kind: str) -> None:
        """Start a child, unless the end was asked for; a signal waits until the child is known, or is itself again."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            if self._is_stopping:
                return
            parent = os.getpid()
            pid = os.fork()
            if pid:
                self._children[pid] = (kind, time.monotonic())
                return
            for which in _SIGNALS:
                signal.signal(which, signal.SIG_DFL)
            _die_with(parent)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        code = 1
        try:
            self._be(kind)
            code = 0
        except LayoverError as error:
            sys.stderr.write(f"layover: {error}\n")
            code = 2
        except OSError as error:
            sys.stderr.write(f"layover: {error.strerror or error}\n")
        except Exception as error:  # noqa: BLE001 - the last words of a process that met a defect
            self._log.error("a process met a defect", process=kind, error=repr(error))
        finally:
            with contextlib.suppress(OSError):
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
        """Ask every child to end; the hub waits for the doors, as their streams need it."""
        self._is_stopping = True
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def _check_free(address: Address) -> None:
    """Refuse a port that someone else has: doors share theirs, and would share it with strangers too.

    Raises:
        OSError: the port is in use.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
            probe.listen(1)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from None


def _die_with(parent: int) -> None:
    """Have the kernel end this process with its parent: nobody else would ever end or restart it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


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
