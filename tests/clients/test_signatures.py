"""What cosign, crane and regctl say of an image is the same through a replica as it is directly."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest

from tests.clients.distribution import Distribution
from tests.clients.machine import Machine
from tests.programs import require
from tests.replica import Replica
from tests.upstream import Upstream

_REPOSITORY: Final = "team/app"
_UPSTREAM: Final = "quay.io"
_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_SECONDS: Final = 60.0

# How a signature and an attestation are stored: under tags made of the digest, or as referrers, in two formats.
_STORED: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {"tags": (), "referrers": ("--registry-referrers-mode", "oci-1-1"), "bundles": ("--new-bundle-format",)}
)
_VERIFIED: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {"tags": (), "referrers": ("--experimental-oci11",), "bundles": ("--new-bundle-format", "--trusted-root", "ROOT")}
)
_VERIFY: Final = ("--key", "KEYS.pub", "--insecure-ignore-tlog")

# How registries answer for referrers; all but the first list them under the tag as well.
_DIALS: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        "referrers": {},
        "pages": {"referrers_page": 1},
        "missing": {"referrers": "missing"},
        "missing, the tag is the subject": {"referrers": "missing", "dash_tags": True},
        "a page": {"referrers": "html"},
        "a login": {"referrers": "login"},
        "a limited page": {"referrers": "redirected"},
        "a missing page": {"referrers": "redirected", "referrers_end": 404},
        "another type": {"referrers_type": "application/json"},
    }
)


_NOT_FOR_ALL: Final = frozenset({"pages", "missing, the tag is the subject", "a limited page"})
"""Where not every program succeeds directly: cosign reads one page, and takes a limited page for a failure."""


@dataclass(frozen=True)
class Said:
    """How a program ended, and what it printed in no order, the place where it looked taken out."""

    succeeded: bool
    lines: tuple[str, ...]


class Programs:
    """The programs on a machine of their own, and the two places at which they look at one repository."""

    def __init__(self, direct: str, mirror: str) -> None:
        self.machine = Machine(isolated=False)
        self.machine.set_variable("COSIGN_PASSWORD", "")
        self.machine.set_variable("COSIGN_EXPERIMENTAL", "1")
        self.places = (f"{direct}/{_REPOSITORY}", f"{mirror}/{_UPSTREAM}/{_REPOSITORY}")
        hosts = {address: {"tls": "disabled"} for address in (direct, mirror)}
        self.machine.write("~/.regctl/config.json", json.dumps({"hosts": hosts}))
        self.machine.write("~/predicate.json", '{"built": "with care"}')
        self._words = {
            "KEYS": str(self.machine.home / "keys"),
            "ROOT": str(self.machine.home / "root.json"),
            "PREDICATE": str(self.machine.home / "predicate.json"),
            "LAYOUT": str(self.machine.home / "layout"),
        }
        self.run("cosign", "generate-key-pair", "--output-key-prefix", "KEYS")
        self.run("cosign", "trusted-root", "create", "--out", "ROOT")

    def run(self, program: str, *arguments: str, place: int = 0) -> None:
        """Run a program that must succeed; `IMAGE` is the repository, directly or through the mirror (1)."""
        self.machine.run(require(program), *self._filled(arguments, place))

    def said(self, command: Sequence[str], place: int) -> Said:
        """Run a program that may fail."""
        program, *arguments = command
        done = self.machine._run((require(program), *self._filled(arguments, place)))
        text = done.stdout
        for each in self.places:
            text = text.replace(each, "IMAGE")
        return Said(done.returncode == 0, tuple(sorted(text.splitlines())))

    def sign(self, digest: str, how: str, keys: str = "KEYS") -> None:
        """Sign an image directly."""
        options = ("--key", f"{keys}.key", "--tlog-upload=false", "--yes", *_STORED[how])
        self.run("cosign", "sign", *options, f"IMAGE@{digest}")

    def attest(self, digest: str, how: str) -> None:
        """Attest an image directly."""
        options = ("--key", "KEYS.key", "--tlog-upload=false", "--yes", *(_STORED[how] if how == "bundles" else ()))
        what = ("--type", "custom", "--predicate", "PREDICATE")
        self.run("cosign", "attest", *options, *what, f"IMAGE@{digest}")

    def verifies(self, digest: str, how: str, place: int = 1, keys: str = "KEYS") -> bool:
        """Return whether a signature is found, through the mirror if not directly (0)."""
        options = ("--key", f"{keys}.pub", "--insecure-ignore-tlog", *_VERIFIED[how])
        return self.said(("cosign", "verify", *options, f"IMAGE@{digest}"), place).succeeded

    def _filled(self, arguments: Sequence[str], place: int) -> list[str]:
        filled = []
        for each in arguments:
            text = each.replace("IMAGE", self.places[place])
            for word, path in self._words.items():
                text = text.replace(word, path)
            filled.append(text)
        return filled


def commands(digests: Mapping[str, str], tag: str) -> Iterator[tuple[str, ...]]:
    """Yield everything that is asked of images signed in each way."""
    for how, digest in digests.items():
        image = f"IMAGE@{digest}"
        yield "cosign", "verify", *_VERIFY, *_VERIFIED[how], image
        attested = ("--new-bundle-format", "--trusted-root", "ROOT") if how == "bundles" else ()
        yield "cosign", "verify-attestation", *_VERIFY, "--type", "custom", *attested, image
        yield "cosign", "tree", image
        yield "cosign", "tree", "--experimental-oci11", image
        yield "regctl", "artifact", "list", image
        yield "regctl", "artifact", "list", "--filter-artifact-type", "application/vnd.none", image
        yield "regctl", "artifact", "tree", image
    image = f"IMAGE:{tag}"
    yield "crane", "digest", image
    yield "crane", "manifest", image
    yield "crane", "ls", "IMAGE"
    yield "crane", "ls", "--full-ref", "--omit-digest-tags", "IMAGE"
    yield "crane", "validate", "--remote", image
    yield "regctl", "tag", "ls", "IMAGE"
    yield "regctl", "tag", "ls", "--limit", "2", "IMAGE"
    yield "regctl", "manifest", "get", "--format", "raw-body", image
    yield "regctl", "manifest", "head", image
    yield "regctl", "image", "digest", image


def push(upstream: Upstream) -> dict[str, str]:
    """Push an image for each way to sign, and return their digests."""
    platforms = ["linux/amd64", "linux/arm64"]
    return {
        how: upstream.push_image(_REPOSITORY, how, platforms, [1000], seed).index.digest
        for seed, how in enumerate(_STORED)
    }


def list_under_tags(upstream: Upstream, digests: Mapping[str, str]) -> None:
    """List the referrers of each image under the tag where clients look when a registry has no listing of them."""
    for digest in digests.values():
        with urllib.request.urlopen(f"{upstream.url}/v2/{_REPOSITORY}/referrers/{digest}", timeout=30) as answer:
            upstream.push_manifest(_REPOSITORY, digest.replace(":", "-"), answer.read(), _INDEX)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def mirror(tmp_path: Path, upstream: Upstream) -> Iterator[Replica]:
    """Run a replica that believes what it was told for a moment only."""
    settings = {"LAYOVER_FRESHNESS__TAG_TTL": "500ms", "LAYOVER_FRESHNESS__NEGATIVE_TTL": "500ms"}
    with Replica(tmp_path / "store", upstreams={_UPSTREAM: upstream.url}, settings=settings) as running:
        yield running


@pytest.fixture
def programs(upstream: Upstream, mirror: Replica) -> Iterator[Programs]:
    found = Programs(upstream.address, mirror.url.removeprefix("http://"))
    yield found
    found.machine.close()


@pytest.mark.parametrize("kind", _DIALS)
def test_says_the_same__whatever_the_registry_says_of_referrers(
    kind: str, upstream: Upstream, programs: Programs
) -> None:
    digests = push(upstream)
    for how, digest in digests.items():
        programs.sign(digest, how)
        programs.attest(digest, how)
    if kind != "referrers":
        list_under_tags(upstream, digests)
    for name, value in _DIALS[kind].items():
        setattr(upstream.dials, name, value)
    compare(programs, digests, all_succeed=kind not in _NOT_FOR_ALL)


def test_says_the_same__of_a_registry_that_is_not_ours(
    upstream: Upstream, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    digests = push(upstream)
    with (
        Distribution(tmp_path_factory.mktemp("distribution")) as registry,
        Replica(tmp_path / "store", upstreams={_UPSTREAM: registry.url}) as mirror,
    ):
        programs = Programs(registry.url.removeprefix("http://"), mirror.url.removeprefix("http://"))
        for how, digest in digests.items():
            programs.run("crane", "copy", f"{upstream.address}/{_REPOSITORY}:{how}", f"IMAGE:{how}")
            programs.sign(digest, how)
            programs.attest(digest, how)
        compare(programs, digests, all_succeed=True)
        programs.machine.close()


def compare(programs: Programs, digests: Mapping[str, str], *, all_succeed: bool) -> None:
    """Check that each program says through the mirror what it says directly, if directly it says anything."""
    for command in commands(digests, "tags"):
        direct = programs.said(command, 0)
        assert direct.succeeded or not all_succeed, command
        for _ in range(2 if direct.succeeded else 0):
            assert programs.said(command, 1) == direct, command


@pytest.mark.parametrize("how", _STORED)
def test_verifies__signed_after_it_was_pulled_and_signed_again(
    how: str, upstream: Upstream, programs: Programs
) -> None:
    digest = push(upstream)[how]
    programs.run("crane", "validate", "--remote", f"IMAGE@{digest}", place=1)
    assert not programs.verifies(digest, how)
    programs.sign(digest, how)
    eventually(lambda: programs.verifies(digest, how))
    programs.run("cosign", "generate-key-pair", "--output-key-prefix", "KEYS2")
    assert not programs.verifies(digest, how, keys="KEYS2")
    programs.sign(digest, how, keys="KEYS2")
    eventually(lambda: programs.verifies(digest, how, keys="KEYS2"))
    assert programs.verifies(digest, how) == programs.verifies(digest, how, place=0)


@pytest.mark.parametrize("how", _STORED)
def test_verifies__once_verified_and_the_registry_stopped(
    how: str, upstream: Upstream, mirror: Replica, programs: Programs
) -> None:
    digest = push(upstream)[how]
    programs.sign(digest, how)
    assert programs.verifies(digest, how)
    upstream.pause()
    assert not programs.verifies(digest, how, place=0)
    for _ in range(2):
        eventually(lambda: stale(mirror, digest))
        assert programs.verifies(digest, how)
        mirror.stop()
        mirror.start()


def stale(mirror: Replica, digest: str) -> bool:
    """Return whether what is kept of the referrers has expired."""
    with urllib.request.urlopen(f"{mirror.url}/{_UPSTREAM}/v2/{_REPOSITORY}/referrers/{digest}", timeout=30) as answer:
        status: str = answer.headers["Cache-Status"]
        document: dict[str, Any] = json.load(answer)
        assert "manifests" in document
    return "stale-refused" in status


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.1)
