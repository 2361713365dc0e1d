"""The CNCF distribution registry, an upstream that is not ours."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.clients.process import Daemon
from tests.programs import require
from tests.replica import free_port

_CONFIG = """\
version: 0.1
storage:
  filesystem:
    rootdirectory: {folder}/content
http:
  addr: 127.0.0.1:{port}
"""


class Distribution:
    """A registry process on loopback whose content lies below `folder`; usable from construction on."""

    def __init__(self, folder: Path) -> None:
        registry = require("registry")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        settings = folder / "registry.yaml"
        settings.write_text(_CONFIG.format(folder=folder, port=port))
        environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
        self._daemon = Daemon((registry, "serve", str(settings)), environment, folder / "registry.log")
        self._daemon.wait_until(self._answers)

    def stop(self) -> None:
        """End the process; from then on connections are refused."""
        self._daemon.stop()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/v2/", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
