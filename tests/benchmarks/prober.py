"""One small request again and again at a steady rate, timed, in a process of its own.

`python -m tests.benchmarks.prober URL SECONDS` asks 100 times a second in all, over four connections in turn that stay
open (so that every door of a server is asked), and prints the time that each answer took as JSON.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

from tests.benchmarks.clients import ACCEPT

_RATE = 100
_CONNECTIONS = 4
_PATIENCE = 30.0


def probe(url: str, seconds: float) -> list[float]:
    """Return how long each answer took, in seconds."""
    command = (sys.executable, "-m", __name__, url, str(seconds))
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=10 * seconds + 60)
    return [float(value) for value in json.loads(done.stdout)]


def percentile(values: list[float], share: float) -> float:
    """Return the value that so large a share of all values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _ask(connection: socket.socket, request: bytes) -> float:
    began = time.perf_counter()
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += _some(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    if lines[0].split()[1] != "200":
        raise ConnectionError(lines[0])
    left = next(int(line[15:]) for line in lines if line.startswith("content-length:")) - len(body)
    while left > 0:
        left -= len(_some(connection))
    return time.perf_counter() - began


def _some(connection: socket.socket) -> bytes:
    received = connection.recv(65536)
    if not received:
        raise ConnectionError("closed")
    return received


def main() -> None:
    """Ask, and print the times."""
    url, seconds = sys.argv[1], float(sys.argv[2])
    parts = urlsplit(url)
    request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: {ACCEPT}\r\n\r\n".encode()
    connections = [socket.create_connection((parts.hostname, parts.port), _PATIENCE) for _ in range(_CONNECTIONS)]
    times: list[float] = []
    next_at, end = time.monotonic(), time.monotonic() + seconds
    while next_at < end:
        time.sleep(max(0.0, next_at - time.monotonic()))
        times.append(_ask(connections[len(times) % _CONNECTIONS], request))
        next_at = max(next_at + 1 / _RATE, time.monotonic())
    sys.stdout.write(json.dumps(times) + "\n")


if __name__ == "__main__":
    main()
