"""Who a replica is: the UUID of its store, and the nonce of this run."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import msgspec


class _Kept(msgspec.Struct):
    identity: str
    boot: str = ""


class Identity:
    """The UUID of the store in a folder; `boot` is this run's, `former` that of the run before it, if known."""

    def __init__(self, folder: Path) -> None:
        self.uuid = ""
        self.boot = uuid.uuid4().hex
        self.former = ""
        self._file = folder / "identity"

    def load(self) -> None:
        """Read who the store is, or say so from now on, and note that this run began. The store's owner calls it.

        A disk that takes nothing makes it another one with each run. Blocks.
        """
        try:
            kept = msgspec.json.decode(self._file.read_bytes(), type=_Kept)
            self.uuid, self.former = str(uuid.UUID(kept.identity)), kept.boot
        except (OSError, msgspec.DecodeError, ValueError):
            self.uuid = str(uuid.uuid4())
        fresh = self._file.with_suffix(".new")
        try:
            fresh.write_bytes(msgspec.json.encode(_Kept(self.uuid, self.boot)))
            os.replace(fresh, self._file)  # noqa: PTH105 - it takes the old file's place in one step
        except OSError:
            fresh.unlink(missing_ok=True)
