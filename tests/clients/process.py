"""Programs under test: commands that end in time, and daemons that end with all that they started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_COMMAND_SECONDS = 60.0
_START_SECONDS = 30.0
_STOP_SECONDS = 15.0


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with its output captured; AssertionError if that takes over a minute."""
    try:
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"{' '.join(command)}: not done in time\n{error.stdout!r}\n{error.stderr!r}") from error


class Daemon:
    """A program that runs until it is stopped, with its output in a file; a namespace's parent ends by its child."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready` says so; a daemon that ends or takes too long raises AssertionError with its output."""
        deadline = time.monotonic() + _START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            if ready():
                return
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"{self._log.stem} did not become ready:\n{self.output()}")

    def output(self) -> str:
        """Return the end of what the daemon wrote."""
        return self._log.read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """End the daemon at once; returns when it and all processes of its namespace are gone."""
        if self._process.poll() is None:
            pid = self._process.pid
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            # The kernel reaps the first process of a namespace after all the others.
            os.kill(int(children[0]) if children else pid, signal.SIGKILL)
            self._process.wait(_STOP_SECONDS)
