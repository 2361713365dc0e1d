"""A registry for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.upstream import Upstream


@pytest.fixture(scope="module")
def registry() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running
