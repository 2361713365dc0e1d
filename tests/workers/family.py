"""A replica with several doors, its processes known by what they hold open."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.replica import Replica
from tests.upstream import Upstream

SECONDS = 30.0
COMMAND = (sys.executable, "-m", "mirror", "serve")
_LISTEN = "0A"


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds; an error that says `what` does not, after half a minute."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not so after {SECONDS} s: {what}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Tell whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def open_files(pid: int) -> set[str]:
    """Return what a process holds open; sockets as `socket:[<inode>]`."""
    found = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found.add(str(link.readlink()))
    return found


def listeners(port: int) -> int:
    """Return how many sockets listen at a port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == _LISTEN for row in rows)


class Family:
    """The parent and its children; `with` starts them, and ends all of them whatever happened."""

    def __init__(
        self,
        store: Path,
        upstream: Upstream,
        settings: Mapping[str, str] | None = None,
        command: tuple[str, ...] = COMMAND,
    ) -> None:
        workers = {"LAYOVER_SERVER__WORKERS": "2", **(settings or {})}
        self._doors = int(workers["LAYOVER_SERVER__WORKERS"])
        self.replica = Replica(store, upstreams={"docker.io": upstream.url}, settings=workers, command=command)
        self._seen: set[int] = set()

    @property
    def children(self) -> set[int]:
        """The process ids of all children that run."""
        text = Path(f"/proc/{self.replica.pid}/task/{self.replica.pid}/children").read_text()
        found = {pid for pid in map(int, text.split()) if is_alive(pid)}
        self._seen |= found
        return found

    @property
    def hub(self) -> int | None:
        """The child that holds the store's lock."""
        lock = str(self.replica.store.resolve() / "lock")
        return next((pid for pid in self.children if lock in open_files(pid)), None)

    @property
    def doors(self) -> set[int]:
        """The other children."""
        return self.children - {self.hub}

    def is_whole(self) -> bool:
        """Tell whether a hub and all doors run."""
        return self.hub is not None and len(self.doors) == self._doors

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection to one of the doors, made."""
        connection = http.client.HTTPConnection("127.0.0.1", self.replica.port, timeout=SECONDS)
        connection.connect()
        return connection

    def get(self, path: str) -> tuple[int, bytes]:
        """GET a path over a connection of its own."""
        connection = self.connect()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def answers(self) -> bool:
        """Tell whether a door answers."""
        try:
            return self.get("/v2/")[0] == 200
        except OSError:
            return False

    def door_of(self, connection: http.client.HTTPConnection) -> int:
        """Return the door at the other end of a connection, once it accepted it."""
        port = connection.sock.getsockname()[1]
        holders: list[int] = []

        def is_held() -> bool:
            holders.extend(self._holders(port))
            return bool(holders)

        until(is_held, "a door holds the other end")
        return holders[0]

    def doors_by_port(self) -> dict[int, int]:
        """Return the door of every connection that a door has accepted, by the client's port."""
        sockets = {name: pid for pid in self.doors for name in open_files(pid) if name.startswith("socket:")}
        found = {}
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            local, remote = (int(field.rpartition(":")[2], 16) for field in fields[1:3])
            if local == self.replica.port and f"socket:[{fields[9]}]" in sockets:
                found[remote] = sockets[f"socket:[{fields[9]}]"]
        return found

    def _holders(self, port: int) -> Iterator[int]:
        """Yield the door that holds the connection from a client's port."""
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            local, remote = (int(field.rpartition(":")[2], 16) for field in fields[1:3])
            if (local, remote) == (self.replica.port, port):
                yield from (pid for pid in self.doors if f"socket:[{fields[9]}]" in open_files(pid))

    def wait(self) -> int:
        """Wait until the parent has ended by itself, and return its exit code."""
        assert self.replica._process is not None
        return self.replica._process.wait(SECONDS)

    def survivors(self) -> set[int]:
        """Return which processes of all that were ever seen still run."""
        return {pid for pid in self._seen if is_alive(pid)}

    def __enter__(self) -> Self:
        self.replica.start()
        until(lambda: self.is_whole() and self.answers(), "hub and doors run")
        self._seen.add(self.replica.pid)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(AssertionError, FileNotFoundError):
            self._seen |= self.children
        self.replica.kill()
        for pid in self.survivors():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
