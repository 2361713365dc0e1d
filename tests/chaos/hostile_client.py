"""A client that keeps apart the ways in which an answer can end."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
import time
from typing import NamedTuple, Self
from urllib.parse import urlsplit

PATIENCE = 110.0
_LONGEST_KEPT = 2**20
_PAUSE = 0.05


class Told(NamedTuple):
    """What a client was told.

    `outcome` is a status; or "other", a 200 with another digest than the one expected; or "cut", a 200 that ended
    before its end; or "endless", one that did not end in time; or "none". `began` and `ended` on the monotonic clock.
    """

    outcome: str
    code: str
    message: str
    headers: http.client.HTTPMessage
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


def ask(url: str, method: str, path: str, digest: str = "") -> Told:
    """Ask for something, and read the answer to its end; `digest` is what its body is expected to have."""
    began = time.monotonic()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    found = hashlib.sha256()
    body, outcome, headers = b"", "none", http.client.HTTPMessage()
    try:
        connection.request(method, path)
        response = connection.getresponse()
        outcome, headers = str(response.status), response.headers
        while piece := response.read1(_LONGEST_KEPT):
            found.update(piece)
            body += piece[: _LONGEST_KEPT - len(body)]
            if time.monotonic() - began > PATIENCE:
                return Told("endless", "", "", headers, began, time.monotonic())
        if response.length:
            outcome = "cut" if response.status == 200 else "none"
    except (OSError, http.client.HTTPException):
        outcome = "cut" if outcome == "200" else "none"
    finally:
        connection.close()
    if outcome == "200" and digest and f"sha256:{found.hexdigest()}" != digest:
        outcome = "other"
    code, message = ("", "") if outcome in {"200", "other", "cut", "none"} else _error(body)
    return Told(outcome, code, message, headers, began, time.monotonic())


class Lateness:
    """How late a machine makes an answer that costs nothing, measured while the context lasts."""

    def __init__(self, url: str) -> None:
        self.seconds = 0.0
        """The worst of all."""
        self._url = url
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._measure, name="lateness", daemon=True)

    def _measure(self) -> None:
        while not self._end.wait(_PAUSE):
            self.seconds = max(self.seconds, ask(self._url, "GET", "/v2/").seconds)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(PATIENCE)


def _error(body: bytes) -> tuple[str, str]:
    try:
        error = json.loads(body)["errors"][0]
        return error["code"], error["message"]
    except (ValueError, LookupError, TypeError):
        return "", ""
