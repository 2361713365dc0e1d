"""Who is asked for what, how it is worded, and what becomes of a login that is refused."""

from __future__ import annotations

import time
from typing import Literal

import pytest

from tests.conformance.wire import assert_error
from tests.profiles.place import PASSWORD, USER, Place
from tests.upstream import Image
from tests.upstream.exchange import ask

ROTATED = "rotated-Secret-3"


@pytest.fixture
def image(place: Place) -> Image:
    """Return an image of a registry that asks for tokens."""
    place.upstream.dials.auth = "bearer"
    return place.push()


@pytest.fixture
def closed(place: Place, image: Image) -> Image:
    """Return an image that anonymous callers may not pull."""
    place.upstream.dials.private = {place.repository}
    return image


class TestWording:
    @pytest.mark.parametrize(
        "dials",
        [
            {"challenge_service": None},
            {"challenge_quotes": False},
            {"challenge_scheme": "bEaReR"},
            {"challenge_extra": ["Negotiate", 'Basic realm="registry"']},
            {"challenge_parameters": r'error="a \"quoted\" word",'},
            {"challenge_scope": "never"},
            {"challenge_scope": "get"},
            {"challenge_scope_text": "aws"},
            {"challenge_realm": "foreign", "realm_path": "/jwt/auth"},
        ],
        ids=str,
    )
    def test_never_matters(self, dials: dict[str, object], place: Place, closed: Image) -> None:
        for name, value in dials.items():
            setattr(place.upstream.dials, name, value)
        assert place.ask("manifests/1", "user", "HEAD").status == 200
        place.pull(closed, "user")
        assert place.upstream.counters.tokens() <= 2
        assert place.upstream.counters.failed_logins == 0

    def test_asks_for_no_more_than_is_needed(self, place: Place, closed: Image) -> None:
        place.pull(closed, "user")
        assert place.upstream.counters.tokens() == place.upstream.counters.tokens(f"repository:{place.repository}:pull")

    def test_keeps_an_opaque_scope_verbatim(self, place: Place, closed: Image) -> None:
        place.upstream.dials.challenge_scope_text = "aws"
        place.pull(closed, "user")
        assert place.upstream.counters.tokens("aws") >= 1

    def test_is_a_denial__of_a_registry_that_only_says_401(self, place: Place, image: Image) -> None:
        place.upstream.dials.challenge = False
        for caller in ("nobody", "user"):
            assert_error(place.ask("manifests/1", caller), 403, "DENIED")
        assert place.upstream.counters.tokens() == 0
        # The registry says how to come in from now on; of this repository the denial is remembered.
        place.upstream.dials.challenge = True
        place.pull(place.push(repository="team/other"))


class TestRedirectedHost:
    @pytest.fixture
    def moved(self, place: Place, image: Image) -> Image:
        """Return an image of a registry that asks for nothing, and redirects manifests to a host that does."""
        place.upstream.dials.auth_origins, place.upstream.dials.redirect_manifests = {"cdn"}, True
        place.upstream.dials.ping_open = True
        return image

    def test_is_answered_as_nobody(self, place: Place, moved: Image) -> None:
        place.pull(moved)

    def test_learns_no_password(self, place: Place, moved: Image) -> None:
        place.upstream.dials.challenge_realm = "foreign"
        place.pull(moved, "user")
        assert place.upstream.counters.witnesses(PASSWORD) == set()

    def test_learns_no_password__though_it_wants_one(self, place: Place, moved: Image) -> None:
        place.upstream.dials.challenge_realm, place.upstream.dials.private = "foreign", {place.repository}
        for _ in range(3):
            assert_error(place.ask("manifests/1", "user"), 403, "DENIED")
        assert place.upstream.counters.witnesses(PASSWORD) == set()


class TestBasic:
    @pytest.fixture(autouse=True)
    def basic(self, place: Place) -> Image:
        place.upstream.dials.auth, place.upstream.dials.basic_type = "basic", "text/plain; charset=utf-8"
        return place.push()

    def test_lets_in_who_has_the_password(self, place: Place, basic: Image) -> None:
        place.pull(basic, "user")
        assert place.upstream.counters.failed_logins == 0
        assert place.upstream.counters.tokens() == 0

    @pytest.mark.parametrize("wrong_password", [401, 403])
    def test_denies_everybody_else(self, wrong_password: Literal[401, 403], place: Place) -> None:
        place.upstream.dials.wrong_password = wrong_password
        for caller in ("nobody", "mistaken"):
            for _ in range(3):
                assert_error(place.ask("manifests/1", caller), 403, "DENIED")
        assert place.upstream.counters.failed_logins <= 2

    def test_follows__a_password_that_rotates(self, place: Place, basic: Image) -> None:
        dials = place.upstream.dials
        dials.wrong_password = 403
        place.pull(basic, "file")
        dials.users = {USER: ROTATED}
        first, second = (place.push(repository=f"team/{name}", seed=1) for name in ("one", "two"))
        assert_error(place.ask("manifests/1", "file", repository=first.repository), 403, "DENIED")
        place.pull(basic, "file")
        place.password_file.write_text(ROTATED + "\n")
        deadline = time.monotonic() + 30
        while place.ask("manifests/1", "file", repository=second.repository).status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        place.pull(second, "file")
        assert place.upstream.counters.failed_logins <= 3

    def test_asks_nothing_of_nobody__where_content_is_public(self, place: Place, basic: Image) -> None:
        place.upstream.dials.basic_open = True
        place.pull(basic)
        secret = place.push(repository="team/secret", seed=1)
        place.upstream.dials.private = {secret.repository}
        assert_error(place.ask("manifests/1", repository=secret.repository), 403, "DENIED")
        place.pull(secret, "user")

    def test_serves_what_is_public__though_the_password_is_wrong(self, place: Place, basic: Image) -> None:
        place.upstream.dials.basic_open = True
        place.pull(basic, "mistaken")
        assert place.upstream.counters.failed_logins <= 2


class TestWrongPassword:
    @pytest.mark.parametrize("wrong_password", [401, 403])
    def test_leaves_what_is_public(self, wrong_password: Literal[401, 403], place: Place, image: Image) -> None:
        place.upstream.dials.wrong_password = wrong_password
        place.pull(image, "mistaken")
        assert 1 <= place.upstream.counters.failed_logins <= 2

    def test_denies_what_is_not(self, place: Place, closed: Image) -> None:
        assert_error(place.ask("manifests/1", "mistaken"), 403, "DENIED")

    def test_is_not_hammered(self, place: Place) -> None:
        dials = place.upstream.dials
        dials.auth, dials.challenge_realm, dials.realm_path, dials.login_limit = "bearer", "foreign", "/jwt/auth", 30
        for number in range(40):
            image = place.push(10, repository=f"team/app{number}", seed=number)
            place.fetch("manifests/1", image.index.digest, "mistaken", image.repository)
        assert 1 <= place.upstream.counters.failed_logins < 10

    def test_bans__and_what_is_public_is_still_pulled(self, place: Place, image: Image) -> None:
        dials = place.upstream.dials
        dials.login_limit, dials.login_ban_seconds = 3, 3600
        for _ in range(3):
            assert ask(place.upstream.url, "/token", Authorization="Basic eDp5").status == 401
        assert ask(place.upstream.url, "/token", Authorization="Basic eDp5").status == 403
        place.pull(image, "user")
        secret = place.push(repository="team/secret", seed=1)
        dials.private = {secret.repository}
        assert_error(place.ask("manifests/1", "user", repository=secret.repository), 403, "DENIED")


class TestPrivate:
    @pytest.mark.parametrize("private_status", [401, 403])
    def test_opens_to_who_logs_in__and_to_nobody_else(
        self, private_status: Literal[401, 403], place: Place, closed: Image
    ) -> None:
        place.upstream.dials.private_status = private_status
        assert_error(place.ask("manifests/1"), 403, "DENIED")
        place.pull(closed, "user")
        for path in ("manifests/1", f"manifests/{closed.manifests[0].digest}", f"blobs/{closed.layers[0].digest}"):
            assert_error(place.ask(path), 403, "DENIED")
        assert_error(place.ask("tags/list"), 403, "DENIED")

    @pytest.mark.parametrize("token_denied", [401, 403])
    def test_is_denied__by_the_token_endpoint_and_not_asked_again(
        self, token_denied: Literal[401, 403], place: Place, closed: Image
    ) -> None:
        place.upstream.dials.token_denied = token_denied
        for _ in range(10):
            assert_error(place.ask("manifests/1"), 403, "DENIED")
        assert place.upstream.counters.tokens() <= 2
        assert place.upstream.counters.requests(kind="manifest") <= 3
        place.pull(closed, "user")

    @pytest.mark.parametrize("missing_repository", [401, 404])
    def test_is_told_apart__from_what_is_missing_where_the_registry_does(
        self, missing_repository: Literal[401, 404], place: Place, image: Image
    ) -> None:
        place.upstream.dials.missing_repository = missing_repository
        answer = place.ask("manifests/1", "user", repository="team/none")
        assert_error(answer, 403 if missing_repository == 401 else 404, "DENIED", "NAME_UNKNOWN")
        assert place.upstream.counters.tokens() <= 4
        assert place.upstream.counters.failed_logins == 0
