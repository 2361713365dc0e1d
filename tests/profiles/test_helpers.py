"""Credential helpers as they are found in the field: what they are asked, what they say, and what that costs."""

from __future__ import annotations

import time

import pytest

from tests.conformance.wire import assert_error
from tests.profiles.place import PASSWORD, USER, Place
from tests.upstream import Image
from tests.upstream.helpers import Behaviour


@pytest.fixture
def closed(place: Place) -> Image:
    """Return an image that only the user may pull."""
    place.upstream.dials.auth, place.upstream.dials.private = "bearer", {place.repository}
    return place.push()


@pytest.fixture
def public(place: Place) -> Image:
    """Return an image that everybody may pull with a token."""
    place.upstream.dials.auth = "bearer"
    return place.push()


def test_is_asked__for_the_server_s_name(place: Place, closed: Image) -> None:
    place.helper.turn("answers", USER, PASSWORD)
    for _ in range(3):
        place.pull(closed, "helper")
    assert place.helper.asked == [f"get {place.name('helper')}"]


def test_is_understood__beside_noise(place: Place, closed: Image) -> None:
    place.helper.turn("noise", USER, PASSWORD)
    place.pull(closed, "helper")


def test_may_know_nothing(place: Place, public: Image) -> None:
    place.helper.turn("not found")
    place.pull(public, "helper")
    assert place.upstream.counters.authorizations("auth") == []


@pytest.mark.parametrize("behaviour", ["not found", "garbage", "fails"])
def test_denies_what_is_closed__where_it_has_no_answer(behaviour: Behaviour, place: Place, closed: Image) -> None:
    place.helper.turn(behaviour)
    for _ in range(3):
        assert_error(place.ask("manifests/1", "helper"), 403, "DENIED")
    assert len(place.helper.asked) <= 2


@pytest.mark.parametrize("behaviour", ["garbage", "fails"])
def test_fails__and_what_is_public_is_still_pulled(behaviour: Behaviour, place: Place, public: Image) -> None:
    place.helper.turn(behaviour)
    place.pull(public, "helper")


def test_hangs__and_costs_a_bounded_time(place: Place, public: Image) -> None:
    place.helper.turn("hangs")
    began = time.monotonic()
    place.pull(public, "helper")
    assert time.monotonic() - began < 30
    place.pull(public, "helper")
    assert len(place.helper.asked) == 1
