"""The secret of the fleet, from the configuration or from a file that may be replaced at any time."""

from __future__ import annotations

from pathlib import Path

import structlog

_LONGEST = 2**16


class FleetSecret:
    """What requests of siblings are signed with. Called, it returns the secret as it stands."""

    def __init__(self, secret: str, file: str = "") -> None:
        """Use `secret`, or what the `file` says that is named."""
        self._secret = secret
        self._file = file
        self._is_readable = True
        self._log = structlog.get_logger("layover.fleet")

    def __call__(self) -> str:
        """Return the secret."""
        return self._secret

    def refresh(self) -> None:
        """Read the file again, if there is one; while it cannot be read, or is empty, what it said holds. Blocks."""
        if not self._file:
            return
        try:
            with Path(self._file).expanduser().open("rb") as file:
                secret = file.read(_LONGEST).decode().strip()
        except (OSError, RuntimeError, ValueError) as error:
            secret = ""
            if self._is_readable:
                self._log.error("the fleet's secret cannot be read", file=self._file, error=str(error))
        self._is_readable = bool(secret)
        self._secret = secret or self._secret
