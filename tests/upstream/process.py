"""The server as a process of its own, for tests that kill things and for measurements."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import msgspec

from tests.upstream.images import Image, Style

_WAIT_SECONDS = 120.0


class UpstreamProcess:
    """`python -m tests.upstream`, started at once and steered over its control API.

    It knows nothing of the process that it is started from: a client's memory and CPU time can be told from its own.
    """

    def __init__(self) -> None:
        command = (sys.executable, "-m", "tests.upstream")
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the upstream's process did not start"
        addresses = json.loads(line)
        self.url: str = addresses["url"]
        self.cdn_url: str = addresses["cdn_url"]
        self.control_url: str = addresses["control_url"]

    @property
    def address(self) -> str:
        """Return host and port, as an image reference needs them."""
        return self.url.removeprefix("http://")

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    def push_image(
        self,
        repository: str,
        tag: str,
        platforms: Sequence[str] = ("linux/amd64", "linux/arm64"),
        layers: Sequence[int] = (300_000, 5 * 2**20),
        seed: int = 0,
        *,
        raw: bool = False,
        style: Style = "oci",
    ) -> Image:
        """Do as `Upstream.push_image`."""
        order = {"repository": repository, "tag": tag, "platforms": platforms, "layers": layers, "seed": seed}
        return msgspec.convert(self._ask("POST", "push_image", order | {"raw": raw, "style": style}), Image)

    def push_random_blob(self, repository: str, size: int, seed: int = 0) -> str:
        """Do as `Upstream.push_random_blob`."""
        order = {"repository": repository, "size": size, "seed": seed}
        return str(self._ask("POST", "push_random_blob", order)["digest"])

    def dial(self, **values: object) -> None:
        """Set dials by their names in `Dials`; HTTPError 400 for a wrong name or value."""
        self._ask("PATCH", "dials", values)

    def reset(self) -> None:
        """Do as `Upstream.reset`."""
        self._ask("DELETE", "dials")

    def release(self) -> None:
        """Do as `Upstream.release`."""
        self._ask("POST", "release")

    def requests(self, **filters: str) -> int:
        """Return how many requests matched; the filters are those of `Counters.requests`."""
        return int(self._ask("GET", f"counters?{urlencode(filters)}")["requests"])

    def sent(self, digest: str | None = None) -> int:
        """Do as `Counters.sent`."""
        query = {} if digest is None else {"digest": digest}
        return int(self._ask("GET", f"counters?{urlencode(query)}")["sent"])

    def spans(self, digest: str) -> list[tuple[int, int]]:
        """Return the range of bytes really sent by each answer for this blob."""
        return [(start, end) for start, end in self._ask("GET", f"counters?{urlencode({'digest': digest})}")["spans"]]

    def overlaps(self, digest: str) -> int:
        """Do as `Counters.overlaps`."""
        return int(self._ask("GET", f"counters?{urlencode({'digest': digest})}")["overlaps"])

    def clear(self) -> None:
        """Forget everything counted so far."""
        self._ask("DELETE", "counters")

    def pause(self) -> None:
        """Do as `Upstream.pause`."""
        self._ask("POST", "pause")

    def resume(self) -> None:
        """Do as `Upstream.resume`."""
        self._ask("POST", "resume")

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        try:
            self._process.wait(_WAIT_SECONDS)
        finally:
            self._process.kill()
            self._process.wait(_WAIT_SECONDS)
            if self._process.stdout is not None:
                self._process.stdout.close()

    def _ask(self, method: str, action: str, body: object = None) -> dict[str, Any]:
        data = None if body is None else msgspec.json.encode(body)
        request = urllib.request.Request(f"{self.control_url}/_control/{action}", data, method=method)
        with urllib.request.urlopen(request, timeout=_WAIT_SECONDS) as answer:
            document: dict[str, Any] = json.load(answer)
            return document

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
