"""The server that its own tests examine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.upstream.server import Upstream


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server
