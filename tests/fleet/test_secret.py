"""The fleet's secret, and the file that may be replaced at any time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mirror.fleet.secret import FleetSecret


def test_read__no_file__what_the_configuration_says() -> None:
    secret = FleetSecret("its own")
    secret.refresh()
    assert secret() == "its own"


def test_read__the_file_is_replaced__what_it_says_now(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    secret = FleetSecret("", str(file))
    secret.refresh()
    assert secret() == "", "the file may come later"
    file.write_text(" one\n")
    secret.refresh()
    assert secret() == "one"
    file.with_name("new").write_text("two")
    file.with_name("new").rename(file)
    secret.refresh()
    assert secret() == "two"


@pytest.mark.parametrize("what", ["gone", "empty", "no text", "a folder", "a pipe"])
def test_read__the_file_says_nothing__what_it_said_holds(tmp_path: Path, what: str) -> None:
    file = tmp_path / "secret"
    file.write_text("one")
    secret = FleetSecret("", str(file))
    secret.refresh()
    file.unlink()
    if what == "empty":
        file.write_text("\n")
    elif what == "no text":
        file.write_bytes(b"\xff")
    elif what == "a folder":
        file.mkdir()
    elif what == "a pipe":
        os.mkfifo(file)
    secret.refresh()
    assert secret() == "one"
