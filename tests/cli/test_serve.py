"""`layover serve`: how it ends, and what it says when it cannot begin."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from tests.replica import Replica
from tests.upstream import Upstream

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
    newer = json.dumps({"version": 3, "more": "than this release knows"})
    (store / "format").write_text(newer)
    assert_refused(serve(replica(store, SERVER__WORKERS=workers)), 2, str(store), "format 3")
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


@pytest.mark.parametrize("log", ["a full disk", "a reader that left"])
def test_serves__where_its_log_cannot_be_written(log: str, tmp_path: Path) -> None:
    running = replica(tmp_path / "store", LOG__LEVEL="info")
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") if log == "a reader that left" else Path("/dev/full").open("wb") as stderr:
        os.close(reader)
        process = subprocess.Popen(running._command, env=running._environment, stderr=stderr)
    try:
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline and not running._ready():
            time.sleep(0.02)
        with urllib.request.urlopen(f"{running.url}/v2/", timeout=10) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait(10)


def test_leaves_nobody_waiting__who_comes_as_it_ends(tmp_path: Path) -> None:
    refusals: list[str] = []

    def knock(port: int) -> None:
        """Ask again and again until nobody listens; note how that was told."""
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5) as answer:
                    answer.read()
            except (OSError, http.client.HTTPException) as error:
                refusals.append(repr(error))
                if not isinstance(error, ConnectionResetError | http.client.RemoteDisconnected):
                    return

    with Upstream() as upstream:
        digest = upstream.push_random_blob("library/app", 6 * 2**20)
        upstream.dials.blob_stall = 2 * 2**20
        with Replica(tmp_path / "store", upstreams={"docker.io": upstream.url}) as running:
            with urllib.request.urlopen(f"{running.url}/v2/library/app/blobs/{digest}") as download:
                download.read(2**20)
                while upstream.counters.sent(digest) < 2 * 2**20:
                    time.sleep(0.01)
                clients = [threading.Thread(target=knock, args=(running.port,)) for _ in range(6)]
                for client in clients:
                    client.start()
                os.kill(running.pid, signal.SIGTERM)
                for client in clients:
                    client.join(30)
                assert not any(client.is_alive() for client in clients)
                assert not [each for each in refusals if "timed out" in each]
                upstream.release()
                assert len(download.read()) == 5 * 2**20
            assert running._process is not None
            assert running._process.wait(20) == 0
