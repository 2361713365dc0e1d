"""dockerd and its command line."""

from __future__ import annotations

from tests.clients.client import Runtime
from tests.clients.machine import Machine
from tests.clients.process import Daemon
from tests.programs import require

_NO_NETWORK = ("--bridge", "none", "--iptables=false", "--ip6tables=false", "--userland-proxy=false")
# The runc of Debian 12 is older than time namespaces.
_CURRENT_FEATURES = ("--feature", "time-namespaces=false", "--feature")


class Docker(Runtime):
    """A dockerd with the image store that `options` choose."""

    def __init__(self, url: str, program: str, options: tuple[str, ...]) -> None:
        daemon, self._docker = require(program), require("docker")
        machine = Machine(pinned=program == "dockerd-current")
        super().__init__(machine)
        # The command line of Debian 12 speaks a version that the current daemon takes only when told so.
        machine.set_variable("DOCKER_MIN_API_VERSION", "1.24")
        machine.configure("docker", url)
        self._dockerd = (daemon, *_NO_NETWORK, *options)
        self._daemon = self._start()

    def pull(self, reference: str) -> None:
        self._run("pull", reference)

    def digest(self, reference: str) -> str:
        [name] = self._run("image", "inspect", "--format", '{{join .RepoDigests " "}}', reference).split()
        return name.partition("@")[2]

    def forget(self, reference: str) -> None:
        # Removing the image alone leaves its manifests in the daemon's content store.
        self._daemon.stop()
        self._machine.empty("/var/lib/docker")
        self._machine.empty("/run")
        self._daemon = self._start()

    def run(self, reference: str) -> str:
        return self._run("run", "--rm", "--network", "none", reference)

    def close(self) -> None:
        self._daemon.stop()
        super().close()

    def _start(self) -> Daemon:
        daemon = self._machine.start(*self._dockerd)
        daemon.wait_until(lambda: self._machine.succeeds(self._docker, "version"))
        return daemon

    def _run(self, *arguments: str) -> str:
        try:
            return self._machine.run(self._docker, *arguments)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._daemon.output()}") from error


def start_debian_docker(url: str) -> Docker:
    """Start the dockerd of the distribution."""
    return Docker(url, "dockerd", ("--storage-driver", "vfs"))


def start_docker_with_graphdriver(url: str) -> Docker:
    """Start the current dockerd with the image store that it has had from the beginning."""
    options = ("--storage-driver", "vfs", *_CURRENT_FEATURES, "containerd-snapshotter=false")
    return Docker(url, "dockerd-current", options)


def start_docker_with_containerd_store(url: str) -> Docker:
    """Start the current dockerd with containerd's image store."""
    options = ("--storage-driver", "native", *_CURRENT_FEATURES, "containerd-snapshotter=true")
    return Docker(url, "dockerd-current", options)
