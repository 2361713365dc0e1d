"""A machine of its own for each client: it shares programs and loopback with this one, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.clients.process import Daemon, run_command
from tests.programs import PINNED_FOLDER, require_root

_CHECKOUT: Final = Path(__file__).parents[2]
_COPIED: Final = ("alternatives", "group", "hosts", "ld.so.cache", "nsswitch.conf", "passwd", "containers/policy.json")
_ENTER: Final = 'for folder in etc run var/lib; do mount --bind "$0/$folder" "/$folder" || exit 1; done; exec "$@"'
_NAMESPACES: Final = (
    *("setpriv", "--pdeathsig", "KILL"),  # nothing outlives tests that are killed
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
)
_NOWHERE: Final = "http://127.0.0.1:1"


class Machine:
    """A machine on which programs run with their default paths: /etc, /run and /var/lib are its own. Needs root.

    With `pinned`, programs that the tests build are found before those of the distribution. Not `isolated`, only the
    home folder is its own, and root is not needed. Calls raise AssertionError with a program's output when it fails.
    """

    def __init__(self, *, pinned: bool = False, isolated: bool = True) -> None:
        if isolated:
            require_root()
        self._prefix: tuple[str, ...] = ()
        self._root = Path(tempfile.mkdtemp(prefix="machine-"))
        self._removal = weakref.finalize(self, shutil.rmtree, self._root)  # also when a client fails to start
        self.home = self._root / "root"
        for folder in ("etc", "run", "var/lib", "root", "tmp"):
            (self._root / folder).mkdir(parents=True)
        if isolated:
            self._prefix = (*_NAMESPACES, "sh", "-c", _ENTER, str(self._root))
            for name in _COPIED:
                _copy(Path("/etc", name), self._root / "etc" / name)
        folders = [*([str(PINNED_FOLDER)] if pinned else []), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]
        self._environment = {
            "PATH": os.pathsep.join(folders),
            "HOME": str(self.home),
            "TMPDIR": str(self._root / "tmp"),
            # Go programs never send loopback through a proxy: the mirror is reached, every other registry refuses.
            "HTTP_PROXY": _NOWHERE,
            "HTTPS_PROXY": _NOWHERE,
        }

    def set_variable(self, name: str, value: str) -> None:
        """Set an environment variable for the programs started from now on."""
        self._environment[name] = value

    def configure(self, kind: str, url: str) -> None:
        """Write the files that `layover client-config` prints for a client of `kind` and the mirror at `url`."""
        command = (sys.executable, "-m", "mirror", "client-config", kind, "--url", url, "--json")
        printed = subprocess.run(command, cwd=_CHECKOUT, capture_output=True, timeout=30, check=True).stdout
        for file in json.loads(printed):
            self.write(file["path"], file["content"])

    def write(self, path: str, content: str) -> None:
        """Write a file at an absolute path of the machine, or below `~`."""
        place = self._place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)

    def empty(self, folder: str) -> None:
        """Remove all that the folder at an absolute path of the machine, or below `~`, holds."""
        place = self._place(folder)
        shutil.rmtree(place)
        place.mkdir()

    def run(self, *command: str) -> str:
        """Run a program to its end and return what it printed on its standard output."""
        done = self._run(command)
        assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def succeeds(self, *command: str) -> bool:
        """Run a program to its end and return whether it exited with 0."""
        return self._run(command).returncode == 0

    def start(self, *command: str) -> Daemon:
        """Start a program that runs on."""
        return Daemon((*self._prefix, *command), self._environment, self._root / f"{Path(command[0]).name}.log")

    def close(self) -> None:
        """Remove everything; daemons have to be stopped before."""
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        left = [line for line in mounts if str(self._root) in line]
        assert not left, f"mounts were left behind: {left}"
        self._removal()

    def _place(self, path: str) -> Path:
        return self._root / path.replace("~", "root", 1).lstrip("/")

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return run_command((*self._prefix, *command), self._environment)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    elif source.exists():
        shutil.copy(source, target)
