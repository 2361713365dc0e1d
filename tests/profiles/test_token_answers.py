"""Tokens in every shape that registries give them, to a mirror that has credentials."""

from __future__ import annotations

from typing import Literal

import pytest

from tests.conformance.wire import assert_error
from tests.profiles.place import PASSWORD, Place
from tests.upstream import Failure, Image

AZURE_USER = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def closed(place: Place) -> Image:
    """Return an image of a registry that asks for tokens, and gives those that open it to the user alone."""
    place.upstream.dials.auth, place.upstream.dials.private = "bearer", {place.repository}
    return place.push()


class TestShapes:
    @pytest.mark.parametrize(
        "dials",
        [
            {"token_fields": ("token",)},
            {"token_fields": ("access_token",)},
            {"token_fields": ("token", "access_token")},
            {"token_expires_in": None},
            {"token_expires_in": 0},
            {"token_expires_in": 30},
            {"token_issued_at": "2001-01-01T00:00:00.123456789Z"},
            {"token_issued_at": "2101-01-01T00:00:00Z"},
            {"token_type": "text/plain"},
            {"token_late": True},
        ],
        ids=str,
    )
    def test_open(self, dials: dict[str, object], place: Place, closed: Image) -> None:
        for name, value in dials.items():
            setattr(place.upstream.dials, name, value)
        place.pull(closed, "user")
        assert place.upstream.counters.tokens() <= 2

    @pytest.mark.parametrize(
        "dials", [{"token_fields": ()}, {"token_shape": "broken"}, {"token_empty_grant": True}], ids=str
    )
    def test_are_a_denial__where_they_open_nothing(self, dials: dict[str, object], place: Place, closed: Image) -> None:
        for name, value in dials.items():
            setattr(place.upstream.dials, name, value)
        for caller in ("nobody", "user"):
            assert_error(place.ask("manifests/1", caller), 403, "DENIED")
        assert place.upstream.counters.tokens() <= 4

    def test_are_the_upstream_s_failure__beyond_all_bounds(self, place: Place, closed: Image) -> None:
        place.upstream.dials.token_shape = "huge"
        assert_error(place.ask("manifests/1", "user"), 503, "UNAVAILABLE")

    @pytest.mark.parametrize("status", [502, 503, 504])
    def test_are_asked_for_again__after_a_passing_failure(self, status: int, place: Place, closed: Image) -> None:
        place.upstream.dials.failures.append(Failure(status, kind="token", times=1, body="html"))
        place.pull(closed, "user")


class TestExpiry:
    @pytest.mark.parametrize(
        "dials", [{}, {"expired_challenge": False}, {"expired_realm": "elsewhere"}], ids=["usual", "silent", "dead end"]
    )
    def test_is_followed_by_another__asked_for_at_the_registry_s_own_realm(
        self, dials: dict[str, object], place: Place, closed: Image
    ) -> None:
        place.fetch("manifests/1", closed.index.digest, "user")
        if "expired_realm" in dials:
            dials = {"expired_realm": f"{place.upstream.cdn_url}/token"}
        for name, value in dials.items():
            setattr(place.upstream.dials, name, value)
        place.upstream.expire_tokens()
        place.pull(closed, "user")
        assert place.upstream.counters.witnesses(PASSWORD) == {"registry"}
        assert all(each.origin == "registry" for each in place.upstream.counters.headers)

    def test_comes_on_time__in_the_registry_s_own_seconds(self, place: Place, closed: Image) -> None:
        place.upstream.dials.token_lifetime = 0
        assert_error(place.ask("manifests/1", "user"), 403, "DENIED")
        assert place.upstream.counters.tokens() <= 4


class TestIdentityTokens:
    @pytest.fixture
    def refresh(self, place: Place, closed: Image) -> Image:
        """Return an image that a refresh token opens, and a helper that has it."""
        place.upstream.dials.users = {AZURE_USER: PASSWORD}
        place.helper.turn("identity token", secret=PASSWORD)
        return closed

    def test_are_traded__by_post(self, place: Place, refresh: Image) -> None:
        place.upstream.dials.token_post = None
        place.pull(refresh, "helper")
        assert place.upstream.counters.requests("POST", "token") >= 1
        assert all(PASSWORD not in each.path for each in place.upstream.counters.headers)

    @pytest.mark.parametrize("status", [400, 401, 404, 405])
    def test_are_sent_by_get__where_post_is_refused(self, status: int, place: Place, refresh: Image) -> None:
        place.upstream.dials.token_post = status
        place.pull(refresh, "helper")
        assert 1 <= place.upstream.counters.requests("POST", "token") <= 2

    @pytest.mark.parametrize("realm", ["own", "foreign"])
    def test_go_to_the_realm_alone(self, realm: Literal["own", "foreign"], place: Place, refresh: Image) -> None:
        place.upstream.dials.token_post, place.upstream.dials.challenge_realm = None, realm
        place.pull(refresh, "helper")
        assert place.upstream.counters.witnesses(PASSWORD) == {"auth" if realm == "foreign" else "registry"}


class TestSpread:
    def test_is_one_token_for_each_repository(self, place: Place, closed: Image) -> None:
        other = place.push(repository="team/other", seed=1)
        for _ in range(3):
            place.pull(closed, "user")
            place.pull(other, "user")
        for repository in (place.repository, other.repository):
            assert place.upstream.counters.tokens(f"repository:{repository}:pull") <= 2

    def test_keeps_strangers_apart(self, place: Place, closed: Image) -> None:
        place.pull(closed, "user")
        for caller in ("nobody", "mistaken"):
            assert_error(place.ask("manifests/1", caller), 403, "DENIED")

    def test_asks_for_what_a_listing_needs(self, place: Place, closed: Image) -> None:
        place.upstream.dials.tags_scope = "metadata_read"
        for _ in range(3):
            place.fetch("manifests/1", closed.index.digest, "user")
            assert place.ask("tags/list", "user").document["tags"] == ["1"]
        assert place.upstream.counters.tokens() <= 4

    def test_asks_for_no_malformed_scope(self, place: Place) -> None:
        place.upstream.dials.auth, place.upstream.dials.token_strict_scope = "bearer", True
        for repository in ("team/a.b_c__d-e--f", "a/b/c/d/e"):
            place.pull(place.push(repository=repository), "user")
        assert place.upstream.counters.failed_logins == 0
