"""The commands that ask a running replica: what they print, how they end, and what they say when they cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mirror.cli import main
from mirror.cli.figures import size
from tests.chaos.reader import Client
from tests.chaos.scene import eventually
from tests.operator import files, hexes
from tests.replica import NO_PREFETCH, Replica, free_port
from tests.upstream import Image, Upstream

APP = "docker.io/library/app:1"
TOKEN = "of the operators"


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Desk:
    """An operator before a replica that holds the image `app`."""

    def __init__(self, replica: Replica, image: Image, token_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.replica = replica
        self.image = image
        self.flags = ["--server", replica.admin_url, "--token-file", str(token_file)]
        self._capsys = capsys

    def pull(self) -> None:
        Client(self.replica.url, self.image).wait().assert_whole()
        eventually(lambda: hexes(self.image) <= files(self.replica), "it is kept")

    @property
    def size(self) -> str:
        """Return how large the whole image is, as people read it."""
        parts = [self.image.index, *(each.manifest for each in self.image.platforms), *self.image.blobs]
        return size(sum(each.size for each in parts))

    def run(self, *words: str) -> Said:
        """Run a command against the replica."""
        return self.plain(*words, *self.flags)

    def plain(self, *words: str) -> Said:
        """Run a command as it is."""
        code = main(list(words))
        said = self._capsys.readouterr()
        return Said(code, said.out, said.err)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(f"{TOKEN}\n")
    return file


@pytest.fixture(scope="module")
def replica(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory, token_file: Path) -> Iterator[Replica]:
    settings = {**NO_PREFETCH, "LAYOVER_SERVER__WORKERS": "1", "LAYOVER_SERVER__ADMIN_TOKEN_FILE": str(token_file)}
    store = tmp_path_factory.mktemp("cli") / "store"
    with Replica(store, upstreams={"docker.io": upstream.url}, settings=settings) as running:
        yield running


@pytest.fixture
def desk(replica: Replica, upstream: Upstream, token_file: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    image = upstream.push_image("library/app", "1", ["linux/amd64"], [1000, 50_000], raw=True)
    found = Desk(replica, image, token_file, capsys)
    found.pull()
    return found


def test_ls__says_what_is_held(desk: Desk) -> None:
    code, out, err = desk.run("ls")
    assert (code, err) == (0, "")
    head, *rows = out.splitlines()
    assert head.split() == ["IMAGE", "SIZE", "LAST", "USED"]
    assert [row.split()[:3] for row in rows] == [[APP, *desk.size.split()]]
    assert desk.run("ls", "ghcr.io/*") == Said(0, "nothing is held of ghcr.io/*\n", "")
    listed = json.loads(desk.run("ls", "app:*", "--json").out)["images"]
    assert [(each["image"], each["missing"]) for each in listed] == [(APP, 0)]


def test_inspect__says_what_where_and_why(desk: Desk) -> None:
    code, out, _ = desk.run("inspect", "app:1")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert lines["image"].split() == ["image", APP]
    assert lines["digest"].split() == ["digest", desk.image.index.digest]
    assert lines["held"] == f"held       {desk.size}"
    assert lines["platforms"].split() == ["platforms", "linux/amd64"]
    assert "fresh for" in lines["tag"]
    assert lines["pinned"].split() == ["pinned", "no"]
    assert lines["last"].startswith("last pull  ")
    report = json.loads(desk.run("inspect", "app:1", "--json").out)
    assert {part["digest"].partition(":")[2] for part in report["parts"]} == hexes(desk.image)
    assert desk.run("inspect", "unknown:1") == Said(
        1, "", "layover: nothing is known of docker.io/library/unknown:1 here\n"
    )


def test_purge_and_pin__say_what_they_did(desk: Desk) -> None:
    assert desk.run("pin", "app:1") == Said(0, f"pinned {APP} (this replica, which is alone)\n", "")
    assert "pinned" in desk.run("ls").out
    code, out, err = desk.run("purge", "app:1")
    assert (code, err) == (0, "")
    assert out.startswith(f"purged {APP}: 1 tag, 5 digests, ")
    assert desk.run("ls").out == "nothing is held\n"
    assert "purged" in desk.run("inspect", "app:1").out
    done = json.loads(desk.run("purge", "app:1", "--json").out)
    assert done == {"order": "purge", "what": APP, "reach": "alone", "tags": 0, "digests": 0, "bytes": 0}
    assert desk.run("unpin", "app:1") == Said(0, f"unpinned {APP} (this replica, which is alone)\n", "")
    assert desk.run("unpin", "app:1") == Said(1, "", f"layover: {APP} is not pinned by that name\n")


def test_status__shows_replica_and_upstreams(desk: Desk) -> None:
    code, out, _ = desk.run("status")
    assert code == 0
    assert ", alone" in out.splitlines()[0]
    assert "docker.io  up" in out
    assert " (this)" in out
    assert json.loads(desk.run("status", "--json").out)["store"]["is_counted"]


@pytest.mark.parametrize("words", [["purge", "a b"], ["pin", "App"], ["inspect", "*"], ["ls", "a//b"]])
def test_ends_with_2__where_what_is_wrong(desk: Desk, words: list[str]) -> None:
    code, out, err = desk.run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("layover: ")
    assert err.count("\n") == 1


def test_says__that_a_token_is_wanted(desk: Desk, tmp_path: Path) -> None:
    expected = f"layover: {desk.replica.admin_url} wants a token, and not this one: give it with --token-file\n"
    assert desk.plain("ls", "--server", desk.replica.admin_url) == Said(1, "", expected)
    (tmp_path / "wrong").write_text("wrong")
    words = ["ls", "--server", desk.replica.admin_url, "--token-file", str(tmp_path / "wrong")]
    assert desk.plain(*words) == Said(1, "", expected)
    missing = desk.plain("ls", "--server", desk.replica.admin_url, "--token-file", str(tmp_path / "missing"))
    assert missing.code == 2
    assert "--token-file" in missing.err


def test_says__that_nobody_is_there_and_where(desk: Desk) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    code, out, err = desk.plain("status", "--server", url)
    assert (code, out) == (1, "")
    assert err.startswith(f"layover: no replica answers at {url} (")
    assert "--server" in err
    other = desk.plain("status", "--server", desk.replica.url)
    assert other.code == 1
    assert "is no admin port of Layover" in other.err
    wrong = desk.plain("status", "--server", "localhost:5001")
    assert wrong.code == 2


def test_finds__the_local_replica_and_its_token_by_the_configuration(desk: Desk) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mirror", "ls", "--json"],
        env=desk.replica._environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert [each["image"] for each in json.loads(done.stdout)["images"]] == [APP]
