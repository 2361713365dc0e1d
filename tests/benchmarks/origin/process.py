"""The origin as its users see it: a process that is started, asked, steered and ended."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import quote
from urllib.request import urlopen

from tests.benchmarks.content import REPOSITORY, Names
from tests.benchmarks.origin.faults import Faults
from tests.benchmarks.origin.line import LAN, Line
from tests.replica import free_port


class Cost(NamedTuple):
    """What the origin did: requests answered, bytes of blobs sent, connections accepted, faults that struck."""

    requests: int = 0
    sent: int = 0
    connections: int = 0
    faults: int = 0


class Origin:
    """A running origin with one image for each tag, with layers of these sizes in bytes, behind a line."""

    def __init__(self, images: Mapping[str, Sequence[int]], line: Line = LAN) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        arguments = {"port": port, "store_port": free_port(), "images": images, "line": line}
        self._process = subprocess.Popen(
            (sys.executable, "-m", "tests.benchmarks.origin", json.dumps(arguments)), stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self.images: dict[str, Names] = {
            tag: Names(*fields) for tag, fields in json.loads(self._process.stdout.readline()).items()
        }

    def manifest_path(self, reference: str) -> str:
        """Return the path of a manifest by tag or digest."""
        return f"/v2/{REPOSITORY}/manifests/{reference}"

    def layer_path(self, tag: str, number: int = 0) -> str:
        """Return the path of one of an image's layers."""
        return f"/v2/{REPOSITORY}/blobs/{self.images[tag].blobs[number + 1]}"

    def cost(self) -> Cost:
        """Return what was asked of the origin so far."""
        with urlopen(f"{self.url}/_cost", timeout=10) as answer:
            return Cost(*json.load(answer))

    def fail(self, faults: Faults | None = None) -> None:
        """Have these faults from now on instead of those before; None: be well."""
        document = json.dumps(dataclasses.asdict(faults or Faults()))
        with urlopen(f"{self.url}/_faults?{quote(document)}", timeout=10):
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
