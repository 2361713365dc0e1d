"""The clients that find mirrors in registries.conf.d: podman, buildah and skopeo of the distribution."""

from __future__ import annotations

import hashlib
import json

from tests.clients.client import Client, Runtime
from tests.clients.machine import Machine
from tests.programs import require

_STORAGE = ("--storage-driver", "vfs")


def _make_machine(url: str) -> Machine:
    machine = Machine()
    machine.configure("podman", url)
    machine.write("/etc/containers/containers.conf", '[engine]\nlock_type = "file"\n')  # shared memory would stay
    return machine


class Podman(Runtime):
    """podman."""

    def __init__(self, url: str) -> None:
        self._podman = (require("podman"), *_STORAGE, "--cgroup-manager", "cgroupfs", "--events-backend", "none")
        super().__init__(_make_machine(url))

    def pull(self, reference: str) -> None:
        self._machine.run(*self._podman, "pull", reference)

    def digest(self, reference: str) -> str:
        return self._machine.run(*self._podman, "image", "inspect", "--format", "{{.Digest}}", reference).strip()

    def forget(self, reference: str) -> None:
        self._machine.run(*self._podman, "image", "rm", "--force", reference)

    def run(self, reference: str) -> str:
        limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
        return self._machine.run(*self._podman, "run", "--rm", "--network", "none", *limits, reference)


class Buildah(Client):
    """buildah."""

    def __init__(self, url: str) -> None:
        self._buildah = (require("buildah"), *_STORAGE)
        super().__init__(_make_machine(url))

    def pull(self, reference: str) -> None:
        self._machine.run(*self._buildah, "pull", reference)

    def digest(self, reference: str) -> str:
        [image] = json.loads(self._machine.run(*self._buildah, "images", "--json", reference))
        return str(image["digest"])

    def forget(self, reference: str) -> None:
        self._machine.run(*self._buildah, "rmi", "--force", reference)


class Skopeo(Client):
    """skopeo, copying images of all platforms into a folder."""

    def __init__(self, url: str) -> None:
        self._skopeo = require("skopeo")
        super().__init__(_make_machine(url))
        self._copy = self._machine.home / "copy"

    def pull(self, reference: str) -> None:
        self._machine.run(self._skopeo, "copy", "--all", f"docker://{reference}", f"dir:{self._copy}")

    def digest(self, reference: str) -> str:
        return f"sha256:{hashlib.sha256((self._copy / 'manifest.json').read_bytes()).hexdigest()}"

    def forget(self, reference: str) -> None:
        self._machine.empty("~/copy")
