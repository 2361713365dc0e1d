"""A client that looks at every byte: what came, when, whether it is right, and whether its response was complete."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from tests.upstream import Image

PATIENCE = 60.0
_READ = 256 * 2**10
_POLL = 0.005
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Arrival(NamedTuple):
    """At `moment`, on the monotonic clock, `total` body bytes had come."""

    moment: float
    total: int


class Reader:
    """One GET on a connection and a thread of its own, begun at once; `arrivals` opens with the head of the answer."""

    def __init__(self, url: str, target: str, headers: Mapping[str, str] | None = None) -> None:
        self.status = 0
        self.headers = http.client.HTTPMessage()
        self.arrivals: list[Arrival] = []
        self.is_complete = False
        """Whether the body ended as its framing says it should."""
        self.error: Exception | None = None
        self.target = target
        self._asked = dict(headers or {})
        self._hash = hashlib.new("sha512" if "sha512:" in target else "sha256")
        self._address = urlsplit(url).netloc
        self._socket: socket.socket | None = None
        self._is_killed = False
        self._may_read = threading.Event()
        self._may_read.set()
        self._beginning = b""
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    @property
    def received(self) -> int:
        """Return how many body bytes came so far."""
        return self.arrivals[-1].total if self.arrivals else 0

    @property
    def digest(self) -> str:
        """Return the digest of the body bytes that came."""
        return f"{self._hash.name}:{self._hash.hexdigest()}"

    @property
    def beginning(self) -> bytes:
        """Return the first bytes of the body, at most 256 KiB: all of an error, a manifest or a small range."""
        return self._beginning

    @property
    def has_ended(self) -> bool:
        """Say whether the answer is over, in whatever way."""
        return not self._thread.is_alive()

    def wait(self, seconds: float = PATIENCE) -> Self:
        """Wait until the answer is over."""
        self._thread.join(seconds)
        assert self.has_ended, f"{self.target}: {self.received} bytes came in {seconds} s, and no end"
        return self

    def wait_for(self, total: int, seconds: float = PATIENCE) -> Self:
        """Wait until the head and `total` body bytes are there."""
        deadline = time.monotonic() + seconds
        while not self.arrivals or self.received < total:
            assert not self.has_ended, f"{self.target}: ended with {self.received} bytes: {self}"
            assert time.monotonic() < deadline, f"{self.target}: {self.received} bytes came in {seconds} s"
            time.sleep(_POLL)
        return self

    def kill(self) -> None:
        """Break the connection, as a client that dies does."""
        self._is_killed = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                self._socket.shutdown(socket.SHUT_RDWR)

    def hold(self) -> None:
        """Read no more, until `go_on`."""
        self._may_read.clear()

    def go_on(self) -> None:
        """Read again."""
        self._may_read.set()

    def longest_pause(self, since: float) -> float:
        """Return the longest time without a byte from the moment `since` on, in seconds."""
        moments = [since, *(arrival.moment for arrival in self.arrivals if arrival.moment > since)]
        return max((later - earlier for earlier, later in itertools.pairwise(moments)), default=0.0)

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=PATIENCE)
        try:
            connection.connect()
            self._socket = connection.sock
            connection.request("GET", self.target, headers=self._asked)
            response = connection.getresponse()
            self.status, self.headers = response.status, response.headers
            self.arrivals.append(Arrival(time.monotonic(), 0))
            self._read(response)
        except (OSError, http.client.HTTPException) as error:
            self.error = error
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse) -> None:
        length = response.length
        while (length is None or self.received < length) and not self._is_killed:
            self._may_read.wait(PATIENCE)
            piece = response.read1(_READ if length is None else min(_READ, length - self.received))
            if not piece:
                break
            self._hash.update(piece)
            if len(self._beginning) < _READ:
                self._beginning = (self._beginning + piece)[:_READ]
            self.arrivals.append(Arrival(time.monotonic(), self.received + len(piece)))
        self.is_complete = not self._is_killed and length in {None, self.received}

    def __repr__(self) -> str:
        return f"status {self.status}, {self.received} bytes, complete: {self.is_complete}, error: {self.error!r}"


class Client:
    """A client that pulls one platform of an image: the index by its tag, its manifest, then all its blobs at once."""

    def __init__(self, url: str, image: Image, platform: str = "linux/amd64") -> None:
        self.readers: list[Reader] = []
        self._url = url
        self._image = image
        self._part = image.platform(platform)
        self._is_killed = False
        self._thread = threading.Thread(target=self._run, name="client", daemon=True)
        self._thread.start()

    @property
    def received(self) -> int:
        """Return how many body bytes came so far."""
        return sum(reader.received for reader in self.readers)

    def kill(self) -> None:
        """Break every connection."""
        self._is_killed = True
        for reader in self.readers:
            reader.kill()

    def wait(self, seconds: float = PATIENCE) -> Self:
        """Wait until the pull is over."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"the pull did not end in {seconds} s: {self.readers}"
        return self

    def assert_whole(self) -> None:
        """Check that everything of the image came, and is right."""
        expected = [self._image.index.digest, self._part.manifest.digest, *(blob.digest for blob in self._part.blobs)]
        assert [reader.digest for reader in self.readers] == expected, self.readers
        assert all(reader.status == 200 and reader.is_complete for reader in self.readers)

    def _run(self) -> None:
        base = f"/v2/{self._image.repository}"
        for reference in (self._image.tag, self._part.manifest.digest):
            self._begin(f"{base}/manifests/{reference}").wait()
        blobs = [self._begin(f"{base}/blobs/{blob.digest}") for blob in self._part.blobs]
        for reader in blobs:
            reader.wait(2 * PATIENCE)

    def _begin(self, target: str) -> Reader:
        reader = Reader(self._url, target)
        self.readers.append(reader)
        if self._is_killed:
            reader.kill()
        return reader


def get(url: str, target: str, headers: Mapping[str, str] | None = None, seconds: float = PATIENCE) -> Reader:
    """Read an answer to its end."""
    return Reader(url, target, headers).wait(seconds)


def get_all(url: str, target: str, count: int, seconds: float = PATIENCE) -> Sequence[Reader]:
    """Read an answer to its end, `count` times at once."""
    readers = [Reader(url, target) for _ in range(count)]
    return [reader.wait(seconds) for reader in readers]


def assert_nothing_wrong(store: Path) -> None:
    """Check that every content file of a store has the digest that its name says."""
    for file in (store / "content").rglob("*"):
        if file.is_file():
            algorithm = file.relative_to(store / "content").parts[0]
            with file.open("rb") as stream:
                assert hashlib.file_digest(stream, algorithm).hexdigest() == file.name, file
