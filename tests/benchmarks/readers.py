"""Many clients that pull one blob at once, in a process of their own, as cheaply as the kernel lets them.

`python -m tests.benchmarks.readers URL COUNT [--seconds S | --repeat]` prints `begun`, and at its end a `Result` as
JSON. With `--seconds` each reader takes no more than its share of the blob, so that the pull lasts so long. With
`--repeat` readers begin anew until the standard input ends. The first reader verifies the digest; for the others the
kernel drops the bytes that have arrived, so that little of the machine is spent on clients.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import select
import socket
import subprocess
import sys
import time
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlsplit

_TICK = 0.02
_PATIENCE = 30.0
_BUFFER = 2**20


class Result(NamedTuple):
    """How the pull went: the time it took, how many readers got every byte (the first: the right ones), all bytes."""

    seconds: float
    whole: int
    received: int


def read(url: str, count: int, seconds: float = 0.0) -> Result:
    """Pull with `count` readers in a process of their own and return how it went."""
    command = (sys.executable, "-m", __name__, url, str(count), "--seconds", str(seconds))
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=600.0 + 10 * seconds)
    return Result(*json.loads(done.stdout.splitlines()[-1]))


class Downloads:
    """So many readers that pull a blob again and again, flat out, while the context lasts; `result` is there after."""

    def __init__(self, url: str, count: int) -> None:
        self.result = Result(0.0, 0, 0)
        self._process = subprocess.Popen(
            (sys.executable, "-m", __name__, url, str(count), "--repeat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("the downloads did not begin")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            output, _ = self._process.communicate(timeout=_PATIENCE)
            if output:
                self.result = Result(*json.loads(output.splitlines()[-1]))
        finally:
            self._process.kill()


class _Reader:
    """One client. `left` is the number of bytes still to come, `received` that of all that came."""

    def __init__(self, url: str, buffer: memoryview, *, verify: bool) -> None:
        parts = urlsplit(url)
        self._buffer = buffer
        self._digest = parts.path.rpartition(":")[2]
        self._verify = verify
        self._request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
        self.connection = socket.create_connection((parts.hostname, parts.port), _PATIENCE)
        self.size = self.left = self.received = 0

    def ask(self) -> None:
        """Ask for the blob."""
        self._hasher = hashlib.sha256() if self._verify else None
        self.connection.settimeout(_PATIENCE)
        self.connection.sendall(self._request)

    def begin(self) -> None:
        """Read the response's head."""
        head = b""
        while b"\r\n\r\n" not in head:
            received = self.connection.recv(4096)
            if not received:
                raise ConnectionError("closed before an answer")
            head += received
        head, _, body = head.partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        if lines[0].split()[1] != "200":
            raise ConnectionError(lines[0])
        self.size = next(int(line[15:]) for line in lines if line.startswith("content-length:"))
        self.left = self.size - len(body)
        self.received += len(body)
        if self._hasher is not None:
            self._hasher.update(body)
        self.connection.setblocking(False)

    def take(self, allowed: int) -> None:
        """Read what is there, until `allowed` bytes of the body were read in all."""
        flags = 0 if self._hasher is not None else socket.MSG_TRUNC
        while self.left and (limit := min(allowed - self.size + self.left, len(self._buffer))) > 0:
            try:
                received = self.connection.recv_into(self._buffer, limit, flags)
            except BlockingIOError:
                return
            if not received:
                raise ConnectionError(f"closed with {self.left} bytes missing")
            self.left -= received
            self.received += received
            if self._hasher is not None:
                self._hasher.update(self._buffer[:received])

    def whole(self) -> bool:
        """Tell whether everything came, and is right as far as that was looked at."""
        return not self.left and (self._hasher is None or self._hasher.hexdigest() == self._digest)


def _begin(url: str, count: int, *, verify: bool) -> list[_Reader]:
    buffer = memoryview(bytearray(_BUFFER))
    readers = [_Reader(url, buffer, verify=verify and number == 0) for number in range(count)]
    for reader in readers:
        reader.ask()
    for reader in readers:
        reader.begin()
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    return readers


def _pull(url: str, count: int, seconds: float) -> Result:
    began = time.monotonic()
    readers = _begin(url, count, verify=True)
    size = readers[0].size
    open_ = list(readers)
    while open_:
        passed = time.monotonic() - began
        if passed > 10 * seconds + 120:
            raise TimeoutError(f"{len(open_)} readers are not done")
        for reader in open_:
            reader.take(int(size * passed / seconds) if seconds else size)
        open_ = [reader for reader in open_ if reader.left]
        if seconds:
            time.sleep(_TICK)
        else:
            select.select([reader.connection for reader in open_], (), (), 1.0)  # few readers: paced ones sleep
    return _result(readers, began)


def _repeat(url: str, count: int) -> Result:
    began = time.monotonic()
    readers = _begin(url, count, verify=False)
    by_descriptor = {reader.connection.fileno(): reader for reader in readers}
    while True:
        ready, _, _ = select.select([sys.stdin.fileno(), *by_descriptor], (), (), 1.0)
        if sys.stdin.fileno() in ready:
            return _result(readers, began)
        for reader in map(by_descriptor.__getitem__, ready):
            reader.take(reader.size)
            if not reader.left:
                reader.ask()
                reader.begin()


def _result(readers: list[_Reader], began: float) -> Result:
    whole, received = sum(reader.whole() for reader in readers), sum(reader.received for reader in readers)
    return Result(time.monotonic() - began, whole, received)


def main() -> None:
    """Pull, and print the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("count", type=int)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--repeat", action="store_true")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.repeat:
        pulled = _repeat(options.url, options.count)
    else:
        pulled = _pull(options.url, options.count, options.seconds)
    sys.stdout.write(json.dumps(pulled) + "\n")


if __name__ == "__main__":
    main()
