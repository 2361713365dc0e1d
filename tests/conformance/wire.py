"""HTTP as it goes over the wire: targets and headers sent as they are given, answers kept as they came."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.upstream import Image

_SECONDS = 30.0
_API_VERSION = "registry/2.0"

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """One answer; `headers` finds names in any case."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def document(self) -> Any:
        """Return the JSON of the body."""
        return json.loads(self.body)

    @property
    def length(self) -> int:
        """Return what Content-Length says."""
        return int(self.headers["Content-Length"])


@dataclass(frozen=True)
class Part:
    """One part of a multipart/byteranges body: the half-open range it says it is, and its bytes."""

    start: int
    stop: int
    size: int
    media_type: str
    body: bytes


class Door:
    """The data port of a replica; every call is a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection that the caller closes."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=_SECONDS)

    def ask(self, method: str, target: str, headers: Headers = ()) -> Answer:
        """Send one request and read its answer to the end."""
        connection = self.connect()
        try:
            return exchange(connection, method, target, headers)
        finally:
            connection.close()

    def get(self, target: str, headers: Headers = ()) -> Answer:
        """GET `target`."""
        return self.ask("GET", target, headers)

    def head(self, target: str, headers: Headers = ()) -> Answer:
        """HEAD `target`."""
        return self.ask("HEAD", target, headers)

    def pull(self, image: Image) -> None:
        """GET everything of a Docker Hub image, as a client of every platform would."""
        base = f"/v2/{image.repository}"
        targets = [f"{base}/manifests/{image.tag}"]
        targets += [f"{base}/manifests/{manifest.digest}" for manifest in (image.index, *image.manifests)]
        targets += [f"{base}/blobs/{blob.digest}" for blob in image.blobs]
        for target in targets:
            answer = self.get(target)
            assert answer.status == 200, (target, answer.body[:500])

    def send(self, request: bytes) -> Answer:
        """Send bytes that need not be HTTP, and read one answer."""
        with socket.create_connection(("127.0.0.1", self.port), _SECONDS) as connection:
            with contextlib.suppress(ConnectionError):  # refused half-way: the answer is there to be read
                connection.sendall(request)
            return _receive(http.client.HTTPResponse(connection))


def exchange(connection: http.client.HTTPConnection, method: str, target: str, headers: Headers = ()) -> Answer:
    """Send one request over an open connection and read its answer."""
    lines = list(headers.items() if isinstance(headers, Mapping) else headers)
    has_host = any(name.lower() == "host" for name, _ in lines)
    connection.putrequest(method, target, skip_host=has_host, skip_accept_encoding=True)
    for name, value in lines:
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


def parts(answer: Answer) -> list[Part]:
    """Return the parts of a multipart/byteranges answer, read strictly by RFC 2046."""
    kind, _, boundary = answer.headers["Content-Type"].partition("; boundary=")
    assert kind == "multipart/byteranges"
    delimiter = b"--" + boundary.strip('"').encode()
    head, *bodies, tail = (b"\r\n" + answer.body).split(b"\r\n" + delimiter)
    assert head == b""
    assert tail in (b"--", b"--\r\n")
    return [_part(body) for body in bodies]


def assert_error(answer: Answer, status: int, *codes: str) -> None:
    """Check that the answer is an error by the specification, with one of `codes`."""
    assert answer.status == status, answer.body[:500]
    assert answer.headers["Docker-Distribution-Api-Version"] == _API_VERSION
    assert answer.headers["Content-Type"].partition(";")[0] == "application/json"
    errors = answer.document["errors"]
    assert len(errors) >= 1
    for error in errors:
        assert set(error) <= {"code", "message", "detail"}
        assert error["code"] in codes, error
        assert isinstance(error["message"], str)
        assert error["message"]


def assert_plain(answer: Answer) -> None:
    """Check what holds for every answer that is no error."""
    assert answer.headers["Docker-Distribution-Api-Version"] == _API_VERSION
    assert "Content-Encoding" not in answer.headers
    assert "WWW-Authenticate" not in answer.headers


def _receive(response: http.client.HTTPResponse) -> Answer:
    response.begin()
    return Answer(response.status, response.headers, response.read())


def _part(text: bytes) -> Part:
    assert text.startswith(b"\r\n")
    head, _, body = text[2:].partition(b"\r\n\r\n")
    fields = {}
    for line in head.decode().split("\r\n"):
        name, _, value = line.partition(": ")
        fields[name.lower()] = value
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", fields["content-range"])
    assert match is not None, fields
    start, last, size = (int(number) for number in match.groups())
    return Part(start, last + 1, size, fields["content-type"], body)
