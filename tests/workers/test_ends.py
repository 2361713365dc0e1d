"""How doors end whose hub is away, and nobody starts another, or does not answer: without waiting for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.replica import Replica
from tests.upstream import Upstream
from tests.workers.family import SECONDS, Family, is_alive, until

# A door that waits for its hub waits as good as for ever.
ENDLESS_PATIENCE = (
    sys.executable,
    "-c",
    """
from mirror import app
from mirror.channel import client
from mirror.cli.main import main
app._LAST_REPORT_SECONDS = client._PATIENCE_SECONDS = 3600.0
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
