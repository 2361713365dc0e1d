"""What the server was asked and what it really sent, exact to the byte and safe to read from any thread."""

from __future__ import annotations

import base64
import binascii
import os
import socket
import struct
import threading
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote_plus

from tests.upstream.routes import Origin, Route

_ESTABLISHED = 1


class Received(NamedTuple):
    """One request as it came in. `path` is the raw request target, its query included."""

    origin: Origin
    method: str
    path: str
    headers: Mapping[str, str]

    def holds(self, secret: str) -> bool:
        """Tell whether a secret came with the request: in its target, in a header, or as a Basic password."""
        values = [unquote_plus(self.path), *self.headers.values()]
        values += [decoded for value in self.headers.values() for decoded in _basic(value)]
        return any(secret in value for value in values)


class Span(NamedTuple):
    """A half-open range of bytes of a blob."""

    start: int
    end: int


class Answer:
    """One blob answer while it is being sent; every byte the kernel took is counted at the moment it did."""

    def __init__(self, lock: threading.Lock, connection: socket.socket, promised: Span) -> None:
        self._lock = lock
        self._connection = connection
        self._promised = promised
        self._sent = 0
        self._open = True

    @property
    def sent(self) -> Span:
        """Return the bytes of the blob that were handed to the socket so far."""
        return Span(self._promised.start, min(self._promised.start + self._sent, self._promised.end))

    @property
    def missing(self) -> Span:
        """Return what this answer still owes; empty once it ended or its client went away."""
        return Span(self.sent.end, self._promised.end if self._open and self._connected() else self.sent.end)

    def send_file(self, file: int, offset: int, count: int) -> int:
        """Hand up to `count` bytes of an open file to the socket; BlockingIOError when it takes none now.

        BrokenPipeError as soon as the client closed its side: what its kernel would throw away is not sent.
        """
        with self._lock:
            if not self._connected():
                raise BrokenPipeError
            taken = os.sendfile(self._connection.fileno(), file, offset, count)
            self._sent += taken
        return taken

    def add(self, count: int) -> None:
        """Count bytes that went another way than `send_file`."""
        with self._lock:
            self._sent += count

    def end(self) -> None:
        """Mark the answer as ended. The server calls it before it closes the connection."""
        self._open = False

    def _connected(self) -> bool:
        try:
            state = self._connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        except OSError:
            return False
        return bool(struct.unpack("B", state)[0] == _ESTABLISHED)


class Counters:
    """Every request received and every blob byte sent since the start or the last `clear()`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[tuple[Route, Received]] = []
        self._answers: dict[str, list[Answer]] = {}
        self._shared: dict[str, list[Span]] = {}
        self._scopes: list[tuple[str, ...]] = []
        self._forms: list[tuple[Origin, str]] = []
        self._failed_logins = 0
        self._flooded = 0

    def requests(
        self,
        method: str | None = None,
        kind: str | None = None,
        repository: str | None = None,
        digest: str | None = None,
    ) -> int:
        """Return how many requests matched every given filter; blob requests sent to the CDN have the kind `cdn`."""
        with self._lock:
            return sum(
                (method is None or received.method == method)
                and (kind is None or route.kind == kind)
                and (repository is None or route.repository == repository)
                and (digest is None or route.digest == digest)
                for route, received in self._requests
            )

    def sent(self, digest: str | None = None) -> int:
        """Return the body bytes of this blob (None: of all blobs) that were handed to sockets, by both origins."""
        with self._lock:
            digests = list(self._answers) if digest is None else [digest]
        return sum(end - start for one in digests for start, end in self.spans(one))

    def spans(self, digest: str) -> list[Span]:
        """Return the range of bytes really sent by each answer for this blob, in the order they began."""
        with self._lock:
            return [answer.sent for answer in self._answers.get(digest, [])]

    def overlaps(self, digest: str) -> int:
        """Return how many bytes were sent more than once, or owed by one answer while another began to send them."""
        spans = self.spans(digest)
        repeated = [
            Span(max(one.start, two.start), min(one.end, two.end))
            for index, one in enumerate(spans)
            for two in spans[:index]
        ]
        with self._lock:
            shared = list(self._shared.get(digest, []))
        return _union(repeated + shared)

    @property
    def headers(self) -> list[Received]:
        """Return every request received, in order, with its headers."""
        with self._lock:
            return [received for _, received in self._requests]

    @property
    def failed_logins(self) -> int:
        """Return how often a password, a refresh token or an identity was refused."""
        with self._lock:
            return self._failed_logins

    @property
    def flooded(self) -> int:
        """Return the bytes of bodies without an end that were handed to sockets."""
        with self._lock:
            return self._flooded

    def tokens(self, scope: str | None = None) -> int:
        """Return how many token requests named this scope (None: how many there were)."""
        with self._lock:
            return sum(scope is None or scope in scopes for scopes in self._scopes)

    def authorizations(self, origin: Origin | None = None) -> list[str]:
        """Return every Authorization header received, in order, by one origin or by all."""
        received = [each for each in self.headers if origin in (None, each.origin)]
        return [line for each in received for name, line in each.headers.items() if name.lower() == "authorization"]

    def witnesses(self, secret: str) -> set[Origin]:
        """Return the origins that a secret reached, in whatever part of a request."""
        with self._lock:
            found = {origin for origin, form in self._forms if secret in unquote_plus(form)}
        return found | {each.origin for each in self.headers if each.holds(secret)}

    def clear(self) -> None:
        """Forget everything counted so far; answers still being sent are no longer counted."""
        with self._lock:
            self._requests.clear()
            self._answers.clear()
            self._shared.clear()
            self._scopes.clear()
            self._forms.clear()
            self._failed_logins = self._flooded = 0

    def record(self, route: Route, received: Received) -> None:
        """Count one request, before anything is answered."""
        with self._lock:
            self._requests.append((route, received))

    def note(self, origin: Origin, form: str) -> None:
        """Record the body of a POST."""
        with self._lock:
            self._forms.append((origin, form))

    def ask_token(self, scopes: tuple[str, ...]) -> None:
        """Count a token request."""
        with self._lock:
            self._scopes.append(scopes)

    def fail_login(self) -> None:
        """Count a failed login."""
        with self._lock:
            self._failed_logins += 1

    def flood(self, count: int) -> None:
        """Count bytes of a body without an end."""
        with self._lock:
            self._flooded += count

    def answer(self, digest: str, connection: socket.socket, promised: Span) -> Answer:
        """Begin to count one blob answer, and what other open answers still owe of the same bytes."""
        answer = Answer(self._lock, connection, promised)
        with self._lock:
            others = self._answers.setdefault(digest, [])
            owed = [other.missing for other in others]
            shared = [Span(max(promised.start, span.start), min(promised.end, span.end)) for span in owed]
            self._shared.setdefault(digest, []).extend(span for span in shared if span.start < span.end)
            others.append(answer)
        return answer


def _basic(value: str) -> tuple[str, ...]:
    try:
        return (base64.b64decode(value.rpartition(" ")[2], validate=True).decode(),)
    except (binascii.Error, UnicodeDecodeError):
        return ()


def _union(spans: list[Span]) -> int:
    """Return how many bytes the spans cover together."""
    covered = 0
    reached = 0
    for start, end in sorted(spans):
        covered += max(0, end - max(start, reached))
        reached = max(reached, end)
    return covered
