"""Credentials, a clock to move, programs to ask, and a cloud on loopback."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from mirror.config import Upstream
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.source.upstream.credentials import Credentials
from mirror.source.upstream.daemons import DaemonThreads
from tests.source.credentials.cloud import Cloud

HOST = "registry.example"
Write = Callable[[str, str], Path]


def upstream(name: str = HOST, url: str = "", **keys: Any) -> Upstream:
    """Return an upstream as the configuration would."""
    return Upstream(name, name, url or f"https://{name}")._replace(**keys)


def put(file: Path, content: str | bytes) -> None:
    """Write a file."""
    file.write_bytes(content.encode() if isinstance(content, str) else content)


async def refusal(credentials: Credentials, asked: Upstream) -> str:
    """Return why there are no credentials, in the one line that a client may see."""
    with pytest.raises(RegistryError) as refused:
        await credentials.of(asked)
    error = refused.value
    assert (error.code, error.failure) == (ErrorCode.DENIED, Failure.CREDENTIALS)
    assert error.message.startswith(f"upstream {asked.name}: ")
    assert error.message.isprintable()
    assert len(error.message) < 400
    return error.message


class Clock:
    """Stands until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Return the seconds that have passed."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr("mirror.source.upstream.credentials.leases.time", moved)
    return moved


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait as long as it takes on this machine, where a test says nothing else."""
    for name in ("_PATIENCE_SECONDS", "_PATIENCE_AFTER_FAILURE_SECONDS"):
        monkeypatch.setattr(f"mirror.source.upstream.credentials.leases.{name}", 60.0)


@pytest.fixture
async def credentials() -> AsyncIterator[Credentials]:
    known = Credentials(DaemonThreads())
    yield known
    await known.close()


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return what writes the helper of a name; it is found on PATH and starts in a folder of its own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(name: str, script: str) -> Path:
        program = folder / f"docker-credential-{name}"
        program.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
        program.chmod(0o755)
        return program

    return write


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """Return a cloud on loopback; nothing of this machine's own identity is left to be found."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "IDENTITY_", "MSI_", "CLOUDSDK_")) or "proxy" in name.lower():
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with Cloud() as running:
        yield running
