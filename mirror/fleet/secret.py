"""The secret of the fleet, from the configuration or from a file that may be replaced at any time."""

from __future__ import annotations

import stat
from pathlib import Path

import structlog

_LONGEST = 2**16


class FleetSecret:
    """What requests of siblings are signed with. Called, it returns the secret as it stands, empty while unknown."""

    def __init__(self, secret: str, file: str = "") -> None:
        """Use `secret`, or what a file of this name says once it was read."""
        self._secret = secret
        self._file = file
        self._is_readable = True
        self._log = structlog.get_logger("layover.fleet")

    def __call__(self) -> str:
        """Return the secret."""
        return self._secret

    def refresh(self) -> None:
        """Read the file again, if there is one; while there is none in it, what it said before holds. Blocks."""
        if not self._file:
            return
        try:
            secret = _read(self._file)
        except (OSError, RuntimeError, ValueError) as error:
            if self._is_readable:
                self._log.error("the fleet's secret cannot be read", file=self._file, error=str(error))
            self._is_readable = False
        else:
            self._is_readable = True
            self._secret = secret


def _read(name: str) -> str:
    path = Path(name).expanduser()
    # Opening a pipe would wait for whoever writes to it.
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is not a file")
    with path.open("rb") as file:
        secret = file.read(_LONGEST).decode().strip()
    if not secret:
        raise ValueError("it is empty")
    return secret
