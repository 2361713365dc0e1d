"""A program that is missing skips a test on a laptop, and fails it in CI."""

from __future__ import annotations

import pytest

from tests.programs import require


def test_returns_the_path__program_on_path() -> None:
    assert require("sh").endswith("/sh")


def test_skips_with_its_name__program_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program"):
        require("no-such-program")


def test_fails_with_its_name__program_missing_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-program"):
        require("no-such-program")
