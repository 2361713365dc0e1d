"""Refusals that are remembered for a moment, by their age."""

from __future__ import annotations

import pytest

from mirror.hub.negatives import Negatives
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.oci.reference import Repository, Tag

APP = Repository("registry.test", "team/app")
MISSING = RegistryError(ErrorCode.MANIFEST_UNKNOWN, "it is not there")
DENIED = RegistryError(ErrorCode.DENIED, "it is closed")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("mirror.hub.negatives.time.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("error", [MISSING, DENIED])
def test_repeats__what_another_replica_was_told__until_it_is_too_old(error: RegistryError, clock: list[float]) -> None:
    negatives = Negatives(5)
    negatives.note(APP, Tag("1"), "robot", error, age=3)
    clock[0] += 1.9
    with pytest.raises(RegistryError):
        negatives.check(APP, Tag("1"), "robot")
    clock[0] += 0.2
    negatives.check(APP, Tag("1"), "robot")


@pytest.mark.parametrize("error", [MISSING, DENIED])
def test_forgets__when_names_are_purged(error: RegistryError, clock: list[float]) -> None:
    negatives = Negatives(5)
    negatives.note(APP, Tag("1"), "robot", error)
    negatives.forget(lambda _: True)
    negatives.check(APP, Tag("1"), "robot")
