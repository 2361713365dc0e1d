"""One replica for the tests of a file; each test has a registry of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.profiles.place import PASSWORD, WRONG, Place, Places, assert_discreet


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    with closing(Places(tmp_path_factory.mktemp("places"))) as found, found.replica:
        yield found
    assert_discreet(found.replica, PASSWORD, WRONG)


@pytest.fixture
def place(places: Places) -> Iterator[Place]:
    """Return a registry; in the end nothing but itself, or its realm, may have seen a password."""
    found = places.take()
    with found.upstream:
        yield found
        dials, counters = found.upstream.dials, found.upstream.counters
        realm = "auth" if dials.challenge_realm == "foreign" and dials.auth == "bearer" else "registry"
        for secret in (PASSWORD, WRONG):
            assert counters.witnesses(secret) <= {realm}
