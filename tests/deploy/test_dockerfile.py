from __future__ import annotations

import fnmatch
import http.server
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.config import load
from tests.replica import free_port

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"


def stages() -> list[list[tuple[str, str]]]:
    """The instructions and their arguments, split at each FROM; what stands before the first is stage 0."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[tuple[str, str]]] = [[]]
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            found.append([])
        found[-1].append((instruction, arguments.strip()))
    return found


def final(instruction: str) -> str:
    """The last such instruction of the image."""
    return [arguments for name, arguments in stages()[-1] if name == instruction][-1]


def environment() -> dict[str, str]:
    """What the image sets."""
    return dict(pair.split("=", 1) for pair in shlex.split(final("ENV")))


@pytest.fixture
def admin_port() -> Iterator[int]:
    """A port where something answers `/healthz` alone, with 200."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def check_health(listen: str) -> int:
    """Run the image's health check against `listen`, and return its exit code."""
    command = json.loads(final("HEALTHCHECK").partition("CMD")[2])
    assert command[0] == "/opt/layover/bin/python"
    settings = {**os.environ, "LAYOVER_SERVER__ADMIN_LISTEN": listen}
    return subprocess.run(
        [sys.executable, *command[1:]], env=settings, stderr=subprocess.DEVNULL, check=False
    ).returncode


def test_builds__with_the_classic_builder() -> None:
    before, *images = stages()
    assert [name for name, _ in before] == ["ARG"]
    assert before[0][1].startswith("BASE=")
    assert [stage[0][1].split()[0] for stage in images] == ["${BASE}", "${BASE}"]
    assert not [arguments for stage in images for name, arguments in stage if name == "RUN" and "--mount" in arguments]


def test_copies__only_what_exists_and_is_not_ignored() -> None:
    rules = (ROOT / ".dockerignore").read_text().split()
    kept = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    assert rules[0] == "*"
    copied = {
        source
        for stage in stages()[1:]
        for name, arguments in stage
        if name == "COPY" and "--from" not in arguments
        for source in arguments.split()[:-1]
    }
    assert copied == set(kept)
    for source in copied:
        assert (ROOT / source).exists()
        assert not any(fnmatch.fnmatch(source, rule) for rule in rules[1:] if not rule.startswith("!"))


def test_installs__only_what_has_a_hash() -> None:
    runs = " && ".join(arguments for name, arguments in stages()[1] if name == "RUN")
    installs = [command for command in runs.split("&&") if " install " in command]
    assert installs
    for command in installs:
        assert "--require-hashes" in command or ("--no-index" in command and "--no-deps" in command)


def test_runs__without_root_and_without_a_shell() -> None:
    assert final("USER") == "10001:10001"
    assert json.loads(final("ENTRYPOINT")) == ["/opt/layover/bin/layover", "serve"]


def test_configures__what_the_image_declares() -> None:
    settings = load(None, {name: value for name, value in environment().items() if name.startswith("LAYOVER_")})
    assert str(settings.store.path) == final("VOLUME")
    ports = {str(address.port) for address in (*settings.server.listen, settings.server.admin_listen)}
    assert ports == set(final("EXPOSE").split())


def test_is_healthy__admin_port_answers(admin_port: int) -> None:
    assert check_health(f"0.0.0.0:{admin_port}") == 0


def test_is_not_healthy__nobody_answers() -> None:
    assert check_health(f"0.0.0.0:{free_port()}") != 0
