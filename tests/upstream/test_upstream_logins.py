"""Who logs in, how often that may fail, how fast manifests go, and what is remembered of all that."""

from __future__ import annotations

import base64
import json

import pytest

from tests.upstream import Upstream
from tests.upstream.exchange import Reply, ask, dial

PATH = "/v2/library/app/manifests/1"
SCOPE = "repository:library/app:pull"
SECRET = "s3cret:with colon"


def basic(user: str = "ann", password: str = SECRET) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def post(url: str, path: str, form: str) -> Reply:
    """Send a form, and read until the server ends the connection."""
    head = f"POST {path} HTTP/1.1\r\nHost: upstream\r\nConnection: close\r\nContent-Length: {len(form)}\r\n\r\n"
    received = b""
    with dial(url) as connection:
        connection.sendall(head.encode() + form.encode())
        while block := connection.recv(2**16):
            received += block
    start, _, body = received.partition(b"\r\n\r\n")
    return Reply(int(start.split()[1]), {}, body, False)


@pytest.fixture
def guarded(upstream: Upstream) -> Upstream:
    """Return a registry with an image and a user, that asks for tokens."""
    upstream.push_image("library/app", "1", layers=(1000,))
    upstream.dials.auth, upstream.dials.users = "bearer", {"ann": SECRET}
    return upstream


def token(upstream: Upstream, **headers: str) -> str:
    return f"Bearer {json.loads(ask(upstream.url, f'/token?scope={SCOPE}', **headers).body)['token']}"


class TestLogins:
    def test_are_counted__when_they_fail(self, guarded: Upstream) -> None:
        statuses = [ask(guarded.url, "/token", Authorization=basic(password=word)).status for word in ("x", SECRET)]
        assert statuses == [401, 200]
        guarded.dials.auth = "basic"
        assert ask(guarded.url, PATH, Authorization=basic("bob")).status == 401
        assert ask(guarded.url, PATH).status == 401
        assert guarded.counters.failed_logins == 2

    def test_are_banned__after_too_many(self, guarded: Upstream) -> None:
        guarded.dials.login_limit = 3
        wrong = [ask(guarded.url, "/token", Authorization=basic("bob")).status for _ in range(4)]
        assert wrong == [401, 401, 401, 403]
        assert ask(guarded.url, "/token", Authorization=basic()).status == 403
        assert ask(guarded.url, f"/token?scope={SCOPE}").status == 200
        guarded.dials.login_ban_seconds = 0
        assert ask(guarded.url, "/token", Authorization=basic()).status == 200

    @pytest.mark.parametrize("status", [401, 403])
    def test_are_refused__as_dialled(self, status: int, guarded: Upstream) -> None:
        guarded.dials.wrong_password = status  # type: ignore[assignment]
        assert ask(guarded.url, "/token", Authorization=basic("bob")).status == status
        guarded.dials.auth = "basic"
        assert ask(guarded.url, PATH, Authorization=basic("bob")).status == status

    def test_are_needed_by_basic__for_what_is_private_alone(self, guarded: Upstream) -> None:
        guarded.dials.auth, guarded.dials.basic_open = "basic", True
        assert ask(guarded.url, PATH).status == 200
        guarded.dials.private = {"library/app"}
        assert ask(guarded.url, PATH).status == 401
        assert ask(guarded.url, PATH, Authorization=basic()).status == 200


class TestTokens:
    def test_are_all_expired__at_once(self, guarded: Upstream) -> None:
        key = token(guarded)
        assert ask(guarded.url, PATH, Authorization=key).status == 200
        guarded.expire_tokens()
        assert ask(guarded.url, PATH, Authorization=key).status == 401
        assert ask(guarded.url, PATH, Authorization=token(guarded)).status == 200

    @pytest.mark.parametrize("status", [401, 403])
    def test_are_denied__for_what_is_closed_or_missing(self, status: int, guarded: Upstream) -> None:
        guarded.dials.token_denied = status  # type: ignore[assignment]
        guarded.dials.private = {"library/app"}
        assert ask(guarded.url, f"/token?scope={SCOPE}").status == status
        assert ask(guarded.url, f"/token?scope={SCOPE}", Authorization=basic()).status == 200
        missing = "/token?scope=repository:library/none:pull"
        assert ask(guarded.url, missing, Authorization=basic()).status == status

    def test_are_denied_by_the_registry__as_dialled(self, guarded: Upstream) -> None:
        guarded.dials.private, guarded.dials.private_status = {"library/app"}, 403
        assert ask(guarded.url, PATH, Authorization=token(guarded)).status == 403

    @pytest.mark.parametrize("scope", ["library/app:pull", "repository:library/app", "repository:Library/App:pull"])
    def test_need_a_scope_of_the_right_form__when_strict(self, scope: str, guarded: Upstream) -> None:
        guarded.dials.token_strict_scope = True
        assert ask(guarded.url, f"/token?scope={scope}").status == 400
        assert ask(guarded.url, f"/token?scope={SCOPE}").status == 200

    @pytest.mark.parametrize("path", ["/v2/auth", "/jwt/auth", "/service/token", "/oauth2/token", "/proxy_auth"])
    def test_are_had__at_the_realm_s_path(self, path: str, guarded: Upstream) -> None:
        guarded.dials.challenge_realm, guarded.dials.realm_path = "foreign", path
        assert f'realm="{guarded.auth_url}{path}"' in ask(guarded.url, PATH).headers["www-authenticate"]
        assert ask(guarded.auth_url, f"{path}?scope={SCOPE}").status == 200

    def test_are_had__at_a_path_of_the_repository_s_own(self, guarded: Upstream) -> None:
        guarded.dials.realm_path = "/api/docker/{repository}/v2/token"
        realm = f"{guarded.url}/api/docker/library/v2/token"
        assert f'realm="{realm}"' in ask(guarded.url, PATH).headers["www-authenticate"]
        assert ask(guarded.url, "/api/docker/library/v2/token").status == 200

    def test_of_a_listing__name_its_own_action(self, guarded: Upstream) -> None:
        guarded.dials.tags_scope = "metadata_read"
        path = "/v2/library/app/tags/list"
        assert ask(guarded.url, path, Authorization=token(guarded)).status == 401
        assert 'scope="repository:library/app:metadata_read"' in ask(guarded.url, path).headers["www-authenticate"]
        assert ask(guarded.url, PATH, Authorization=token(guarded)).status == 200

    def test_are_had__for_a_refresh_token_by_way_of_an_exchange(self, guarded: Upstream) -> None:
        assert post(guarded.url, "/oauth2/exchange", "").status == 404
        guarded.dials.exchange, guarded.dials.token_post = {"cloud": "ann"}, None
        order = "grant_type=access_token&service=registry.test&access_token="
        assert post(guarded.url, "/oauth2/exchange", f"{order}other").status == 401
        refresh = json.loads(post(guarded.url, "/oauth2/exchange", f"{order}cloud").body)["refresh_token"]
        assert refresh == SECRET
        reply = post(guarded.url, "/oauth2/token", f"grant_type=refresh_token&scope={SCOPE}&refresh_token={SECRET}")
        key = f"Bearer {json.loads(reply.body)['access_token']}"
        assert ask(guarded.url, PATH, Authorization=key).status == 200


class TestLimits:
    def test_of_a_quota__are_each_user_s_own(self, guarded: Upstream) -> None:
        guarded.dials.manifest_quota, guarded.dials.user_quotas = 1, {"ann": 2}
        nobody, ann = token(guarded), token(guarded, Authorization=basic())
        replies = [ask(guarded.url, PATH, Authorization=key) for key in (nobody, nobody, ann, ann, ann)]
        assert [reply.status for reply in replies] == [200, 429, 200, 200, 429]
        assert [int(reply.headers["ratelimit-remaining"].partition(";")[0]) for reply in replies] == [0, 0, 1, 0, 0]

    def test_of_a_rate__let_so_many_pass_at_once(self, upstream: Upstream) -> None:
        upstream.push_image("library/app", "1", layers=(1000,))
        dials = upstream.dials
        dials.manifest_rate, dials.manifest_burst = 0.001, 2
        dials.limit_body, dials.limit_retry_after = "html", "7"
        replies = [ask(upstream.url, PATH, method) for method in ("GET", "HEAD", "GET", "GET", "HEAD")]
        assert [reply.status for reply in replies] == [200, 200, 200, 429, 200]
        assert replies[3].headers["retry-after"] == "7"
        assert replies[3].headers["content-type"].startswith("text/html")


class TestMemory:
    def test_holds_each_authorization__by_origin(self, guarded: Upstream) -> None:
        ask(guarded.url, PATH, Authorization="Bearer x")
        ask(guarded.cdn_url, "/storage/a", Authorization=basic())
        assert guarded.counters.authorizations("registry") == ["Bearer x"]
        assert guarded.counters.authorizations("cdn") == [basic()]
        assert len(guarded.counters.authorizations()) == 2

    def test_knows_every_witness_of_a_secret(self, guarded: Upstream) -> None:
        assert guarded.counters.witnesses(SECRET) == set()
        ask(guarded.url, PATH, Authorization=basic())
        assert guarded.counters.witnesses(SECRET) == {"registry"}
        ask(guarded.cdn_url, "/x?password=s3cret%3Awith+colon")
        assert guarded.counters.witnesses(SECRET) == {"registry", "cdn"}
        post(guarded.auth_url, "/nowhere", "password=s3cret%3Awith+colon")
        assert guarded.counters.witnesses(SECRET) == {"registry", "cdn", "auth"}
        guarded.counters.clear()
        ask(guarded.cdn_url, "/x", Cookie=f"session={SECRET}")
        assert guarded.counters.witnesses(SECRET) == {"cdn"}

    def test_counts_tokens__by_scope(self, guarded: Upstream) -> None:
        for _ in range(2):
            token(guarded)
        ask(guarded.url, f"/token?scope={SCOPE}&scope=repository:library/other:pull", Authorization=basic("bob"))
        assert guarded.counters.tokens() == guarded.counters.tokens(SCOPE) == 3
        assert guarded.counters.tokens("repository:library/other:pull") == 1
