"""A cloud's services on loopback: one server that answers what a test tells it to."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl

ENDLESS = object()
"""An answer whose body has no end."""


class Request(NamedTuple):
    """What a library sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        """The body's fields."""
        return dict(parse_qsl(self.body.decode()))


class Cloud:
    """Answers requests by the beginning of their path; one that it does not know is 404."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self.silent = threading.Event()
        """Set while it accepts requests and answers none."""
        self._released = threading.Event()
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                cloud.requests.append(Request(self.command, self.path, dict(self.headers.items()), body))
                if cloud.silent.is_set():
                    cloud._released.wait(60)
                    return
                known = [each for each in cloud.answers if self.path.startswith(each)]
                status, answer = cloud.answers[max(known, key=len)] if known else (404, {})
                if answer is ENDLESS:
                    self._pour()
                    return
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Metadata-Flavor", "Google")
                self.end_headers()
                self.wfile.write(content)

            def _pour(self) -> None:
                self.send_response(200)
                self.end_headers()
                with contextlib.suppress(OSError):
                    while not cloud._released.is_set():
                        self.wfile.write(b"{" * 2**16)

            do_GET = do_POST = _answer  # noqa: N815 - the names that http.server calls

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as it is declared
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.address}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
