"""A real Prometheus on loopback."""

from __future__ import annotations

import json
import math
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.programs import require
from tests.replica import free_port

_START_SECONDS = 30.0


class Prometheus:
    """Scrapes one target every second, and answers queries."""

    def __init__(self, folder: Path, target: str) -> None:
        self._folder = folder
        self._port = free_port()
        self._program = require("prometheus")
        self._process: subprocess.Popen[bytes] | None = None
        job = {"job_name": "layover", "static_configs": [{"targets": [target]}]}
        settings = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
        (folder / "prometheus.yml").write_text(json.dumps(settings))

    def query(self, expression: str) -> list[float]:
        """Return the finite values of an instant query; an expression that does not parse is an `HTTPError`."""
        answer = self._get(f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        values = [float(series["value"][1]) for series in json.loads(answer)["data"]["result"]]
        return [value for value in values if math.isfinite(value)]

    def targets(self) -> list[dict[str, Any]]:
        """Return what is scraped, with the health and the last error of each."""
        found: list[dict[str, Any]] = json.loads(self._get("/api/v1/targets"))["data"]["activeTargets"]
        return found

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=10) as answer:
            return str(answer.read(), "utf-8")

    def __enter__(self) -> Self:
        command = (
            self._program,
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        )
        log = self._folder / "prometheus.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self._get("/-/ready")
            except OSError:
                time.sleep(0.1)
            else:
                return self
        self._stop()
        raise AssertionError(f"Prometheus did not become ready:\n{log.read_text()[-4000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None
