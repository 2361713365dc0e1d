"""containerd, asked by its own `ctr` and as a Kubernetes node asks it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final

from tests.clients.client import Client
from tests.clients.machine import Machine
from tests.programs import require

_CONFIG: Final = "/etc/containerd/main.toml"


@dataclass(frozen=True)
class Release:
    """A containerd and what it is called; `settings` add to its printed configuration what not every host carries."""

    daemon: str
    ctr: str
    kind: str
    settings: str


# The native snapshotter works on every file system; the default one, overlayfs, does not.
DEBIAN_CONTAINERD: Final = Release(
    daemon="containerd",
    ctr="ctr",
    kind="containerd1",
    settings="""\
version = 2
imports = ["/etc/containerd/config.toml"]
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
""",
)
CURRENT_CONTAINERD: Final = Release(
    daemon="containerd-current",
    ctr="ctr-current",
    kind="containerd",
    settings="""\
version = 3
imports = ["/etc/containerd/config.toml"]
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "native"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux"
  snapshotter = "native"
""",
)


class Containerd(Client):
    """`ctr`: in a 1.x it resolves and fetches by itself, in a 2.x the daemon does."""

    _namespace: ClassVar = "default"

    def __init__(self, url: str, release: Release) -> None:
        daemon, ctr = require(release.daemon), require(release.ctr)
        machine = Machine(pinned=release is CURRENT_CONTAINERD)
        super().__init__(machine)
        machine.configure(release.kind, url)
        machine.write(_CONFIG, release.settings)
        self._ctr = (ctr, "--namespace", self._namespace, "images")
        self._daemon = machine.start(daemon, "--config", _CONFIG)
        self._daemon.wait_until(lambda: machine.succeeds(ctr, "version"))

    def pull(self, reference: str) -> None:
        options = ("--snapshotter", "native", "--hosts-dir", "/etc/containerd/certs.d")
        self._run(*self._ctr, "pull", *options, reference)

    def digest(self, reference: str) -> str:
        [line] = self._run(*self._ctr, "ls", f"name=={reference}").splitlines()[1:]
        return next(field for field in line.split() if field.startswith("sha256:"))

    def forget(self, reference: str) -> None:
        self._run(*self._ctr, "rm", "--sync", reference)

    def close(self) -> None:
        self._daemon.stop()
        super().close()

    def _run(self, *command: str) -> str:
        try:
            return self._machine.run(*command)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._daemon.output()}") from error


class Kubelet(Containerd):
    """The kubelet's own requests, to the CRI plugin; gRPC with curl."""

    _namespace = "k8s.io"

    def __init__(self, url: str, release: Release) -> None:
        self._curl = (
            *(require("curl"), "--silent", "--show-error", "--include", "--http2-prior-knowledge"),
            *("--unix-socket", "/run/containerd/containerd.sock"),
            *("--header", "Content-Type: application/grpc", "--header", "TE: trailers"),
        )
        super().__init__(url, release)

    def pull(self, reference: str) -> None:
        self._ask("PullImage", reference)

    def forget(self, reference: str) -> None:
        self._ask("RemoveImage", reference)

    def _ask(self, method: str, reference: str) -> None:
        # A message whose only field is an ImageSpec, whose only field is the image's name.
        name = reference.encode()
        message = bytes((0x0A, len(name) + 2, 0x0A, len(name))) + name
        request = self._machine.home / "request"
        request.write_bytes(b"\0" + struct.pack(">I", len(message)) + message)
        url = f"http://localhost/runtime.v1.ImageService/{method}"
        answer = self._run(*self._curl, "--data-binary", f"@{request}", url)
        assert "grpc-status: 0" in answer, f"{method} {reference}: {answer}\n{self._daemon.output()}"
