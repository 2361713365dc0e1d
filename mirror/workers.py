"""The processes of a replica: one that is hub and door, or a parent with a hub and several doors as its children."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import gc
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import structlog

from mirror.app import DoorApp, HubApp, Pools, Replica
from mirror.config import Settings, usable_cores
from mirror.config.units import Address
from mirror.oci.errors import LayoverError

_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
_PR_SET_PDEATHSIG = 1
_MOST_DOORS = 4
_FOLDER = "layover-hub-"
_SOCKET = "hub"
_SHORTEST_LIFE = 1.0
_PAUSE = 0.2


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code; a second signal ends the process at once.

    Raises:
        ConfigError: a file that the configuration names cannot be used.
        StoreError: the store cannot be used.
        OSError: an address cannot be had.
    """
    doors = settings.server.workers or min(usable_cores(), _MOST_DOORS)
    if doors == 1:
        _run(Replica(settings).run)
        return 0
    with _meeting_place() as folder:
        return Parent(settings, doors, folder / _SOCKET).run()


class Parent:
    """Keeps one hub and several doors running. It serves nothing itself, so that nothing can end it but a signal."""

    def __init__(self, settings: Settings, doors: int, socket: Path) -> None:
        """Prepare to run a hub and so many doors, which meet at `socket`."""
        self._settings = settings
        self._doors = doors
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
        gc.collect()
        gc.freeze()  # what was imported stays shared: no child's collector writes to it
        self._start("hub")
        for _ in range(self._doors):
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
        if not code:
            self._log.info("stopped")
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
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells the children too, but the parent decides
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
            _run(lambda stopping: hub.run(stopping, self._socket, self._doors), is_child=True)
        else:
            door = DoorApp(self._settings, self._socket)
            _run(door.run, is_child=True)

    def _stop(self) -> None:
        """Ask every child to end; the hub waits for the doors, as their streams need it.

        Another signal ends this process at once, and with it the children.
        """
        self._is_stopping = True
        for which in _SIGNALS:
            signal.signal(which, signal.SIG_DFL)
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
    """Have the kernel kill this process with its parent: nobody else would end it, or bring back what it misses."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


@contextlib.contextmanager
def _meeting_place() -> Iterator[Path]:
    """Yield a folder for this process and its children, and remove those of killed ones.

    A folder is locked for as long as any of its processes lives.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        lock = _locked(left)
        if lock is not None:
            _remove(left)
            os.close(lock)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_FOLDER))
        lock = _locked(folder)
        if lock is not None and folder.is_dir():
            break  # else another replica that starts took it for one that was left
    try:
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


def _locked(folder: Path) -> int | None:
    """Return a descriptor that holds the lock of a folder; None if another process does, or it cannot be had."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _remove(folder: Path) -> None:
    """Remove a meeting place; whatever else lies there keeps it."""
    with contextlib.suppress(OSError):
        if (folder / _SOCKET).is_socket():
            (folder / _SOCKET).unlink()
        for counters in folder.glob("counters*"):
            counters.unlink()
        folder.rmdir()


def _run(serve_until: Callable[[asyncio.Event], Coroutine[Any, Any, None]], *, is_child: bool = False) -> None:
    """Run a part of the replica until a signal asks for its end; another ends it at once.

    A child's end is its parent's to ask for, and whoever ends a whole group of processes asks the child again.
    """

    async def serving() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()

        def stop(which: signal.Signals) -> None:
            stopping.set()
            if not is_child:
                loop.remove_signal_handler(which)

        for which in {signal.SIGTERM} if is_child else _SIGNALS:
            loop.add_signal_handler(which, stop, which)
        await serve_until(stopping)

    asyncio.run(serving())
