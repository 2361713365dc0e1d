"""`python -m tests.benchmarks.origin ARGUMENTS`: serve until killed; prints each image's names as JSON once it listens.

`GET /_cost` says what was asked so far, `/_faults?JSON` sets the faults. Neither is on the line.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from dataclasses import astuple

from tests.benchmarks.content import make_image, names
from tests.benchmarks.origin.line import Line
from tests.benchmarks.origin.registry import Registry

# Small, so that few of the bytes counted as sent are still in a kernel when a client leaves.
_SEND_BUFFER = 2**18
_BACKLOG = 1024


def _listen(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    listening.bind(("127.0.0.1", port))
    return listening


async def _run(port: int, store_port: int, images: dict[str, list[int]], line: Line) -> None:
    made = {tag: make_image(tag, layers) for tag, layers in images.items()}
    registry = Registry(made, line, f"http://127.0.0.1:{store_port}")
    await asyncio.start_server(registry.registry, sock=_listen(port), backlog=_BACKLOG)
    await asyncio.start_server(registry.store, sock=_listen(store_port), backlog=_BACKLOG)
    sys.stdout.write(json.dumps({tag: astuple(names(image)) for tag, image in made.items()}) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def main() -> None:
    """Serve until killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a benchmark that is interrupted ends its origin itself
    arguments = json.loads(sys.argv[1])
    asyncio.run(_run(arguments["port"], arguments["store_port"], arguments["images"], Line(*arguments["line"])))


if __name__ == "__main__":
    main()
