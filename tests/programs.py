"""Where the programs that the tests run are found; `tests/programs/install` provides all of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

PINNED_FOLDER = Path(__file__).parent.parent / ".programs" / "bin"
"""Programs built at a pinned version, under their own names: put it first on the PATH of those that start others."""

_PINNED = {
    "dockerd-current": "dockerd",
    "containerd-current": "containerd",
    "ctr-current": "ctr",
    "containerd-shim-runc-v2-current": "containerd-shim-runc-v2",
    "cosign": "cosign",
    "crane": "crane",
    "regctl": "regctl",
    "registry": "registry",
}
_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def require(name: str) -> str:
    """Return the path of a program, or skip the calling test; with `CI` set a missing program is a failure.

    A name in `-current` means the pinned release, the same name without it the one of the distribution.
    """
    if name in _PINNED:
        pinned = PINNED_FOLDER / _PINNED[name]
        path = str(pinned) if os.access(pinned, os.X_OK) else None
    else:
        folders = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS))
        path = shutil.which(name, path=folders)
    return path if path is not None else _missing(f"{name} is not installed: run tests/programs/install")


def require_root() -> None:
    """Skip the calling test unless it runs as root; with `CI` set that is a failure."""
    if os.geteuid() != 0:
        _missing("starting containers needs root")


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
