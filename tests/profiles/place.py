"""A registry of a test's own behind one replica that several tests share, under a name for each way of logging in."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mirror.oci.digest import Digest
from tests.conformance.wire import Answer, Door
from tests.replica import NO_PREFETCH, Replica
from tests.upstream import Descriptor, Image, Upstream
from tests.upstream.helpers import HelperProgram

USER, PASSWORD = "ann", "right-Secret-1"
WRONG = "mistaken-Secret-2"
# A tag whose time to live is over at once.
MOVING = "moving"
_PLACES = 60

Caller = Literal["nobody", "user", "mistaken", "file", "helper"]
"""Without credentials; with the right ones, or wrong ones; with a password in a file; with a credential helper."""


@dataclass(frozen=True)
class Place:
    """One registry, empty and with every dial at its default, and the replica in front of it."""

    number: int
    upstream: Upstream
    replica: Replica
    folder: Path
    repository: str = "team/app"

    def name(self, caller: Caller) -> str:
        """Return the mirror's name for the registry, as it asks it like `caller`."""
        return _name(self.number, caller)

    @property
    def password_file(self) -> Path:
        """Return the file whose content is the password of the caller `file`; its user is the right one."""
        return _password_file(self.folder, self.number)

    @property
    def helper(self) -> HelperProgram:
        """Return the program that the caller `helper` asks."""
        return HelperProgram(self.folder, f"n{self.number}")

    def push(self, *layers: int, tag: str = "1", repository: str = "", seed: int = 0) -> Image:
        """Push an image for one platform, with content that no other test has."""
        name = repository or self.repository
        return self.upstream.push_image(
            name, tag, ("linux/amd64",), layers or (2_000,), seed=self.number * 1000 + seed, raw=True
        )

    def ask(
        self, path: str, caller: Caller = "nobody", method: str = "GET", repository: str = "", **headers: str
    ) -> Answer:
        """Send a request for something of a repository to the replica."""
        sign = "&" if "?" in path else "?"
        target = f"/v2/{repository or self.repository}/{path}{sign}ns={self.name(caller)}"
        return Door(self.replica.port).ask(method, target, headers)

    def fetch(self, path: str, digest: str, caller: Caller = "nobody", repository: str = "") -> Answer:
        """Fetch content whole, check that it is what it should be, and return the answer."""
        answer = self.ask(path, caller, repository=repository)
        assert answer.status == 200, (path, answer.status, answer.body[:500])
        assert Digest.of(answer.body) == digest, path
        return answer

    def pull(self, image: Image, caller: Caller = "nobody") -> None:
        """Pull an image as a client does."""
        self.fetch(f"manifests/{image.tag}", image.index.digest, caller, image.repository)
        for manifest in image.manifests:
            self.fetch(f"manifests/{manifest.digest}", manifest.digest, caller, image.repository)
        for blob in image.blobs:
            self.fetch(f"blobs/{blob.digest}", blob.digest, caller, image.repository)

    def fetch_blob(self, blob: Descriptor, caller: Caller = "nobody") -> Answer:
        """Fetch a blob whole."""
        return self.fetch(f"blobs/{blob.digest}", blob.digest, caller)


class Places:
    """One replica, and as many places as tests may want."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Bound, and never listening: nobody else gets these ports, and no two places the same.
        self._bound = [_bind() for _ in range(_PLACES)]
        self._ports = [bound.getsockname()[1] for bound in self._bound]
        self._given = 0
        tables: dict[str, dict[str, object]] = {}
        for number, port in enumerate(self._ports):
            for caller, login in _logins(folder, number).items():
                tables[_name(number, caller)] = {"url": f"http://127.0.0.1:{port}", **login}
        settings = {
            **NO_PREFETCH,
            "LAYOVER_FRESHNESS__RULES": json.dumps([{"match": f"*:{MOVING}", "ttl": "0s"}]),
            "LAYOVER_FRESHNESS__NEGATIVE_TTL": "1h",
            "PATH": f"{folder}:{os.environ.get('PATH', os.defpath)}",
        }
        for number in range(_PLACES):
            config = {"credHelpers": {_name(number, "helper"): f"n{number}"}}
            _docker_config(folder, number).write_text(json.dumps(config))
            _password_file(folder, number).write_text(PASSWORD)
        self.replica = Replica(folder / "store", upstreams=tables, settings=settings)

    def close(self) -> None:
        """Give the ports back."""
        for bound in self._bound:
            bound.close()

    def take(self) -> Place:
        """Start a registry that no test had before; its caller stops it."""
        number = self._given
        self._given += 1
        place = Place(number, Upstream(self._ports[number]), self.replica, self._folder)
        place.upstream.dials.users = {USER: PASSWORD}
        return place


def _bind() -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", 0))
    return bound


def assert_discreet(replica: Replica, *secrets: str) -> None:
    """Check that a replica's log holds no traceback, and nobody's secrets."""
    log = replica.log.read_text()
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:4000]
    for secret in secrets:
        assert secret not in log


def _name(number: int, caller: Caller) -> str:
    return f"{caller}.n{number}.example"


def _password_file(folder: Path, number: int) -> Path:
    return folder / f"password-{number}"


def _docker_config(folder: Path, number: int) -> Path:
    return folder / f"config-{number}.json"


def _logins(folder: Path, number: int) -> dict[Caller, dict[str, object]]:
    return {
        "nobody": {},
        "user": {"username": USER, "password": PASSWORD, "private": "anyone"},
        "mistaken": {"username": USER, "password": WRONG, "private": "anyone"},
        "file": {"username": USER, "password_file": str(_password_file(folder, number)), "private": "anyone"},
        "helper": {"docker_config": str(_docker_config(folder, number)), "private": "anyone"},
    }
