"""The walk through the house names what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_HOUSE = Path(__file__).parents[2]
_NAMED = sorted(set(re.findall(r"`((?:mirror|tests|docs)/[\w./-]*)`", (_HOUSE / "docs/ARCHITECTURE.md").read_text())))


def test_names__much_of_it() -> None:
    assert len(_NAMED) > 100


@pytest.mark.parametrize("path", _NAMED)
def test_names__what_is_there(path: str) -> None:
    assert (_HOUSE / path).exists()
