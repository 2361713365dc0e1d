"""`layover serve`: how it ends, and what it says when it cannot begin."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.replica import Replica

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


def serve(replica: Replica, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `layover serve` as `replica` would, where it is expected to end by itself."""
    command = [sys.executable, "-m", "mirror", "serve", *words]
    return subprocess.run(command, env=replica._environment, capture_output=True, text=True, timeout=30, check=False)


def assert_refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Check exit code and error: one or two lines, with every one of `words`."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 2, done.stderr
    assert lines[0].startswith("layover: ")
    for word in words:
        assert word in done.stderr


def replica(store: Path, **settings: str) -> Replica:
    variables = {f"LAYOVER_{name}": value for name, value in settings.items()}
    return Replica(store, upstreams={}, settings={"LAYOVER_LOG__LEVEL": "warning", **variables})


def test_exits_2__without_the_file_that_it_was_given(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    done = serve(replica(tmp_path / "store"), "--config", str(missing))
    assert_refused(done, 2, str(missing), "No such file")
    assert not (tmp_path / "store").exists()


def test_exits_2__for_a_wrong_setting(tmp_path: Path) -> None:
    assert_refused(serve(replica(tmp_path / "store", STORE__SIZE="big")), 2, "LAYOVER_STORE__SIZE", "store.size")


@WORKERS
def test_exits_2__for_a_store_in_use(workers: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with replica(store) as owner:
        assert_refused(serve(replica(store, SERVER__WORKERS=workers)), 2, str(store), "in use")
        assert owner.metric("layover_build_info") == 1
        assert owner.stop() == 0
    with replica(store) as heir:
        assert heir.stop() == 0


@WORKERS
def test_exits_2__for_a_store_of_a_newer_release(workers: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    newer = json.dumps({"version": 2, "more": "than this release knows"})
    (store / "format").write_text(newer)
    assert_refused(serve(replica(store, SERVER__WORKERS=workers)), 2, str(store), "format 2")
    assert (store / "format").read_text() == newer


def test_exits_2__for_a_store_that_is_a_file(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.write_text("not a folder")
    assert_refused(serve(replica(store)), 2, str(store))


@WORKERS
@pytest.mark.parametrize("key", ["SERVER__LISTEN", "SERVER__ADMIN_LISTEN"])
def test_exits_1__for_an_address_in_use(key: str, workers: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = serve(replica(tmp_path / "store", SERVER__WORKERS=workers, **{key: address}))
    assert_refused(done, 1, address.partition(":")[2], "in use")


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_exits_0__when_asked_to_end(which: signal.Signals, tmp_path: Path) -> None:
    with replica(tmp_path / "store") as running:
        assert running._process is not None
        running._process.send_signal(which)
        assert running._process.wait(20) == 0
    assert "Traceback" not in running.log.read_text()
