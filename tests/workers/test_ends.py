"""How doors end whose hub is away, and nobody starts another, or does not answer: without waiting for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.chaos.reader import Reader
from tests.chaos.scene import MIB
from tests.replica import Replica
from tests.upstream import Upstream
from tests.workers.family import SECONDS, Family, is_alive, until

# A door that waits for its hub waits as good as for ever.
ENDLESS_PATIENCE = (
    sys.executable,
    "-c",
    """
from mirror.channel import client
from mirror.cli.main import main
from mirror.pull import follower
follower._LAST_REPORT_SECONDS = client._PATIENCE_SECONDS = 3600.0
raise SystemExit(main(["serve"]))
""",
)


def test_tells_why__when_the_hub_cannot_start(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with Replica(store, upstreams={}):
        other = Replica(store, upstreams={}, settings={"LAYOVER_SERVER__WORKERS": "2"})
        process = subprocess.Popen(
            ENDLESS_PATIENCE, env=other._environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            _, said = process.communicate(timeout=SECONDS)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
    assert process.returncode == 2
    (line,) = said.splitlines()
    assert line.startswith(f"layover: store.path {store}: is in use")


def test_end_alone__when_hub_and_parent_are_killed(tmp_path: Path) -> None:
    with Upstream() as upstream, Family(tmp_path / "store", upstream, command=ENDLESS_PATIENCE) as family:
        hub, doors = family.hub, family.doors
        assert hub is not None
        os.kill(family.replica.pid, signal.SIGSTOP)
        os.kill(hub, signal.SIGKILL)
        until(lambda: not is_alive(hub), "the hub has ended")
        os.kill(family.replica.pid, signal.SIGKILL)
        until(lambda: not any(is_alive(pid) for pid in doors), "the doors have ended too")


def test_end__though_the_hub_hangs(tmp_path: Path) -> None:
    with Upstream() as upstream, Family(tmp_path / "store", upstream) as family:
        hub, doors = family.hub, family.doors
        assert hub is not None
        os.kill(hub, signal.SIGSTOP)
        os.kill(family.replica.pid, signal.SIGTERM)
        until(lambda: not any(is_alive(pid) for pid in doors), "the doors have ended")
        os.kill(hub, signal.SIGCONT)
        assert family.wait() == 0


def test_end_at_once__when_the_parent_is_killed__though_streams_are_on_their_way(tmp_path: Path) -> None:
    with Upstream() as upstream, Family(tmp_path / "store", upstream) as family:
        digest = upstream.push_random_blob("library/slow", 4 * MIB)
        upstream.dials.blob_stall = MIB
        reader = Reader(family.replica.url, f"/v2/library/slow/blobs/{digest}").wait_for(MIB)
        children = family.children
        assert len(children) == 3
        os.kill(family.hub or 0, signal.SIGSTOP)
        killed_at = time.monotonic()
        os.kill(family.replica.pid, signal.SIGKILL)
        until(lambda: not any(is_alive(pid) for pid in children), "the children have ended too")
        assert time.monotonic() - killed_at < 2
        assert not reader.wait().is_complete


def test_leave_no_folder(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    other = temporary / "layover-hub-of-somebody-else"
    other.mkdir(parents=True)
    (other / "hub").write_text("a file")
    settings = {"TMPDIR": str(temporary)}
    with Upstream() as upstream:
        with Family(tmp_path / "store", upstream, settings) as family:
            (mine,) = set(temporary.iterdir()) - {other}
            with Family(tmp_path / "second", upstream, settings) as second:
                assert mine.exists()
                assert len(list(temporary.iterdir())) == 3
                assert second.replica.stop() == 0
        assert mine.exists()
        until(lambda: not family.survivors(), "all have ended")
        with Family(tmp_path / "store", upstream, settings) as family:
            assert not mine.exists()
            assert family.replica.stop() == 0
    assert list(temporary.iterdir()) == [other]
    assert list(other.iterdir()) == [other / "hub"]


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_wait_for_streams__though_everybody_is_told(which: signal.Signals, tmp_path: Path) -> None:
    """As a terminal and systemd do it, who do not know that the parent tells its children."""
    with Upstream() as upstream, Family(tmp_path / "store", upstream) as family:
        digest = upstream.push_random_blob("library/slow", 4 * MIB)
        upstream.dials.blob_stall = MIB
        reader = Reader(family.replica.url, f"/v2/library/slow/blobs/{digest}").wait_for(MIB)
        for pid in (family.replica.pid, *family.children):
            os.kill(pid, which)
        until(lambda: not family.answers(), "no new connection is accepted")
        upstream.reset()
        upstream.release()
        assert reader.wait().is_complete, reader
        assert family.wait() == 0


def test_end_at_once__when_asked_twice(tmp_path: Path) -> None:
    with Upstream() as upstream, Family(tmp_path / "store", upstream) as family:
        digest = upstream.push_random_blob("library/slow", 4 * MIB)
        upstream.dials.blob_stall = MIB
        reader = Reader(family.replica.url, f"/v2/library/slow/blobs/{digest}").wait_for(MIB)
        children = family.children
        os.kill(family.replica.pid, signal.SIGTERM)
        until(lambda: not family.answers(), "no new connection is accepted")
        os.kill(family.replica.pid, signal.SIGTERM)
        assert family.wait() == -signal.SIGTERM
        until(lambda: not any(is_alive(pid) for pid in children), "the children have ended too")
        assert not reader.wait().is_complete
