"""The whole demo as a process: what it says, how it ends, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

END_SECONDS = 60.0


class Demo:
    """`layover demo` in a session of its own, its output in a file, its temporary folder under `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "temporary"
        self.folder.mkdir()
        self._output = folder / "output"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                (sys.executable, "-m", "mirror", "demo"),
                env={**os.environ, "TMPDIR": str(self.folder), "LAYOVER_STORE__SIZE": "nonsense"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """Return all that was printed so far."""
        return self._output.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until `text` is printed."""
        deadline = time.monotonic() + END_SECONDS
        while text not in self.output:
            assert self._process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the demo's own process, not to its children."""
        self._process.send_signal(number)

    def end(self) -> int:
        """Wait for the end and return the exit code."""
        return self._process.wait(END_SECONDS)

    def survivors(self) -> list[int]:
        """Return the processes of the demo's session that still run."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                except OSError:
                    continue
                if int(session) == self._process.pid and state != "Z":
                    found.append(int(entry.name))
        return found

    def kill(self) -> None:
        """End whatever is left."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
        for pid in self.survivors():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path)
    yield running
    running.kill()


def test_tells_its_story__to_the_end(demo: Demo) -> None:
    assert demo.end() == 0, demo.output
    rows = {
        cells[0]: cells[1:]
        for line in demo.output.splitlines()
        if len(cells := [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]) == 5
    }
    assert int(rows["cold"][2]) > 0
    assert rows["warm"][2:] == ["0", "0.0 MiB"]
    assert rows["registry gone"][1] == rows["cold"][1]
    assert demo.survivors() == []
    assert list(demo.folder.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_leaves_nothing_behind__interrupted_in_a_pull(demo: Demo, number: signal.Signals) -> None:
    demo.wait_for("1. Cold")
    demo.send(number)
    assert demo.end() == 130, demo.output
    assert "Traceback" not in demo.output
    assert demo.survivors() == []
    assert list(demo.folder.iterdir()) == []
