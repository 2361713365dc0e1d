"""A real Layover process under test, started and ended by its own process id."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

# Six that start at once on two busy cores take half a minute.
START_SECONDS = 90.0
# With these settings an upstream is asked for nothing but what clients ask for, so that what they cost can be counted.
NO_PREFETCH = MappingProxyType({"LAYOVER_PREFETCH__ENABLED": "false"})
# Below what the kernel gives to outgoing connections, or one of those might take the port before its server does.
_PORTS = range(20_000, 32_000)
# Whoever was given one may take it later than the next is looked for.
_GIVEN: set[int] = set()


def free_port() -> int:
    """Return a TCP port on loopback that was free a moment ago."""
    for port in random.sample(_PORTS, 100):
        if port in _GIVEN:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _GIVEN.add(port)
            return port
    raise AssertionError("no port is free")


class Replica:
    """`layover serve` on loopback with one store, configured through its environment alone."""

    def __init__(
        self,
        store: Path,
        *,
        upstreams: Mapping[str, str | Mapping[str, object]],
        settings: Mapping[str, str] | None = None,
        command: tuple[str, ...] = (sys.executable, "-m", "mirror", "serve"),
    ) -> None:
        self.store = store
        self.log = store.parent / f"{store.name}.log"
        self.port = free_port()
        self.admin_port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin_url = f"http://127.0.0.1:{self.admin_port}"
        self._command = command
        tables = {name: {"url": value} if isinstance(value, str) else dict(value) for name, value in upstreams.items()}
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LAYOVER_")},
            "LAYOVER_SERVER__LISTEN": f"127.0.0.1:{self.port}",
            "LAYOVER_SERVER__ADMIN_LISTEN": f"127.0.0.1:{self.admin_port}",
            "LAYOVER_STORE__PATH": str(store),
            "LAYOVER_UPSTREAMS": json.dumps(tables),
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the process id; the replica must be running."""
        assert self._process is not None, "the replica is not running"
        return self._process.pid

    def start(self) -> Self:
        """Start the process and wait until `/readyz` answers 200."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            if self._ready():
                return self
            time.sleep(0.02)
        text = self.log.read_text(errors="replace")[-4000:]
        self.kill()
        raise AssertionError(f"the replica did not become ready:\n{text}")

    def stop(self, seconds: float = 40.0) -> int:
        """Ask the process to end (SIGTERM), wait for it, and return its exit code."""
        assert self._process is not None, "the replica is not running"
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(seconds)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the process with SIGKILL, if it still runs."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait(10)
            self._process = None

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum over every series of `name` whose labels contain `labels`."""
        with urllib.request.urlopen(f"{self.admin_url}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        total = 0.0
        for line in lines:
            series, _, value = line.rpartition(" ")
            if series.split("{", 1)[0] == name and all(pair in series for pair in wanted):
                total += float(value)
        return total

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.admin_url}/readyz", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
