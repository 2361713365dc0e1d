"""The clients that copy an image of all platforms into a folder in the OCI image layout: crane and regctl."""

from __future__ import annotations

import json
from abc import abstractmethod

from tests.clients.client import Client
from tests.clients.machine import Machine
from tests.programs import require


class LayoutClient(Client):
    """A client without a daemon, which needs no root."""

    def __init__(self) -> None:
        super().__init__(Machine(isolated=False))
        self._layout = self._machine.home / "layout"

    @abstractmethod
    def pull(self, reference: str) -> None:
        """Copy an image into the folder."""

    def digest(self, reference: str) -> str:
        [descriptor] = json.loads((self._layout / "index.json").read_bytes())["manifests"]
        return str(descriptor["digest"])

    def forget(self, reference: str) -> None:
        self._machine.empty("~/layout")


class Crane(LayoutClient):
    """crane, which has no notion of a mirror and addresses it directly."""

    def __init__(self, url: str) -> None:
        self._crane = require("crane")
        self._mirror = url.removeprefix("http://")
        super().__init__()

    def pull(self, reference: str) -> None:
        name = f"{self._mirror}/{reference}"
        self._machine.run(self._crane, "pull", "--insecure", "--format", "oci", name, str(self._layout))


class Regctl(LayoutClient):
    """regctl."""

    def __init__(self, url: str) -> None:
        self._regctl = require("regctl")
        super().__init__()
        self._machine.configure("regctl", url)

    def pull(self, reference: str) -> None:
        self._machine.run(self._regctl, "image", "copy", reference, f"ocidir://{self._layout}:pulled")
