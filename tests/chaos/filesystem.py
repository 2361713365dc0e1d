"""A small file system of its own for a store."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_FILES = 1000


@contextmanager
def small(path: Path, size: int) -> Iterator[Path]:
    """Mount `size` bytes of memory, for at most 1,000 files, at `path`.

    Where that is not allowed the test is skipped; with `CI` set it fails.
    """
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes={_FILES}", "tmpfs", str(path)]
    mounted = subprocess.run(mount, stderr=subprocess.PIPE, text=True, check=False)
    if mounted.returncode:
        reason = f"mounting a tmpfs needs root and CAP_SYS_ADMIN: {mounted.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def fill_up(folder: Path) -> list[Path]:
    """Write a file until the file system has not one byte left, and return it."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file:
        for block in (2**20, 4096, 1):
            try:
                while file.write(bytes(block)) == block:
                    pass
            except OSError:
                continue
    return [filler]


def use_up_names(folder: Path) -> list[Path]:
    """Make empty files until the file system takes no more of them, and return them."""
    files = []
    for number in range(_FILES):
        try:
            (folder / f"empty{number}").touch()
        except OSError:
            break
        files.append(folder / f"empty{number}")
    return files
