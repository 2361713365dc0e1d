"""A registry for all tests of eviction."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.upstream import Upstream


@pytest.fixture(scope="session")
def registry() -> Iterator[Upstream]:
    """Run one registry for all tests of a folder."""
    with Upstream() as running:
        yield running
