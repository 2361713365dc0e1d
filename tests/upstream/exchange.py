"""HTTP by hand: one request on a connection of its own, read byte by byte to its end."""

from __future__ import annotations

import socket
from typing import NamedTuple


class Reply(NamedTuple):
    """What came back over a connection of its own, read to its end. The header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    reset: bool


def dial(url: str) -> socket.socket:
    """Return a connection to `http://host:port`."""
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def ask(url: str, path: str, method: str = "GET", **headers: str) -> Reply:
    """Send one request and read until the server ends the connection."""
    lines = [f"{method} {path} HTTP/1.1", "Host: upstream", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    received, reset = bytearray(), False
    with dial(url) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        try:
            while block := connection.recv(2**16):
                received += block
        except ConnectionResetError:
            reset = True
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    pairs = dict(line.split(": ", 1) for line in rest)
    return Reply(int(first.split()[1]), {name.lower(): value for name, value in pairs.items()}, body, reset)
