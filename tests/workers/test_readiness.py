"""A replica that says it is ready can be connected to."""

from __future__ import annotations

import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.upstream import Upstream
from tests.workers.family import Family, listeners, until


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    with Upstream() as upstream, Family(tmp_path / "store", upstream) as running:
        yield running


def status(family: Family) -> int:
    """Return what `/readyz` answers."""
    try:
        with urllib.request.urlopen(f"{family.replica.admin_url}/readyz", timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        return refusal.code


def test_comes__with_the_doors(tmp_path: Path) -> None:
    with Upstream() as upstream:
        family = Family(tmp_path / "store", upstream)
        with family.replica:
            assert listeners(family.replica.port) == 2


def test_goes_and_comes__with_the_doors(family: Family) -> None:
    os.kill(family.replica.pid, signal.SIGSTOP)
    try:
        one, other = family.doors
        os.kill(one, signal.SIGKILL)
        until(lambda: listeners(family.replica.port) == 1, "one door is left")
        assert status(family) == 200
        os.kill(other, signal.SIGKILL)
        until(lambda: status(family) == 503, "no door is left, and the hub says so")
    finally:
        os.kill(family.replica.pid, signal.SIGCONT)
    until(lambda: status(family) == 200, "the replica is ready again")
    assert listeners(family.replica.port) == 2
    assert family.answers()


def test_comes_back__when_the_hub_could_not_start_for_a_while(family: Family) -> None:
    hub = family.hub
    assert hub is not None
    os.kill(family.replica.pid, signal.SIGSTOP)
    try:
        os.kill(hub, signal.SIGKILL)
        with socket.socket() as squatter:
            squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            until(lambda: _binds(squatter, family.replica.admin_port), "the admin port is free")
            squatter.listen()
            os.kill(family.replica.pid, signal.SIGCONT)
            until(lambda: family.replica.log.read_text().count("in use") >= 2, "two hubs could not start")
    finally:
        os.kill(family.replica.pid, signal.SIGCONT)
    until(family.is_whole, "another hub took its place")
    until(lambda: status(family) == 200, "the replica is ready again")
    assert family.answers()


def _binds(squatter: socket.socket, port: int) -> bool:
    try:
        squatter.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
