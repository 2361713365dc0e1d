"""Credentials open what they should, and nobody learns of them but the registry, or the realm that it named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

import pytest

from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.source.upstream import realm
from mirror.source.upstream.guard import Privacy
from tests import upstream as bed
from tests.source.callers import APP, PASSWORD, USER, WRONG, Caller, calling, credential, until
from tests.upstream import Upstream

OTHER = "team/other"


@pytest.fixture
def registry(upstream: Upstream) -> Upstream:
    """Return a registry that asks for tokens, with an image that takes credentials and one that does not."""
    for name in (APP.name, OTHER):
        upstream.push_image(name, "1", ("linux/amd64",), (1_000,))
    upstream.dials.auth, upstream.dials.users, upstream.dials.private = "bearer", {USER: PASSWORD}, {APP.name}
    return upstream


@pytest.fixture
async def caller(registry: Upstream) -> AsyncIterator[Caller]:
    async with calling(registry.url, credential()) as found:
        yield found
    assert registry.counters.witnesses(WRONG) == set()


def manifests(upstream: Upstream) -> int:
    return upstream.counters.requests(kind="manifest")


class TestBearer:
    async def test_opens_what_is_private(self, registry: Upstream, caller: Caller) -> None:
        assert [await caller.ask() for _ in range(3)] == [200, 200, 200]
        assert (registry.counters.tokens(), manifests(registry)) == (1, 4)
        assert registry.counters.failed_logins == 0

    async def test_tells_the_realm_alone(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.challenge_realm = "foreign"
        assert await caller.ask() == 200
        assert registry.counters.witnesses(PASSWORD) == {"auth"}

    async def test_counts_the_bytes_of_tokens(self, caller: Caller) -> None:
        assert await caller.ask() == 200
        assert sum(caller.received) > 50

    async def test_is_not_known__to_where_a_redirect_leads(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.redirect_manifests, registry.dials.auth_origins = True, {"registry"}
        assert await caller.ask() == 200
        assert registry.counters.authorizations("cdn") == []

    async def test_keeps_tokens_of_nobody_apart(self, registry: Upstream, caller: Caller) -> None:
        assert await caller.ask() == 200
        assert await caller.ask(is_anonymous=True) == 401
        assert await caller.ask() == 200
        assert await caller.ask(OTHER, is_anonymous=True) == 200
        anonymous = [each for each in registry.counters.headers if each.path.startswith("/token")]
        assert [each.holds(PASSWORD) for each in anonymous] == [True, False, False]

    async def test_never_tells_another_endpoint(self, registry: Upstream, caller: Caller) -> None:
        with Upstream() as mirror:
            mirror.push_image(APP.name, "1", ("linux/amd64",), (1_000,))
            mirror.dials.auth = "bearer"
            assert await caller.ask(base=mirror.url) == 200
            assert await caller.ask() == 200
            assert await caller.ask(base=mirror.url) == 200
            assert mirror.counters.witnesses(PASSWORD) == set()
            assert mirror.counters.tokens() == 1

    @pytest.mark.parametrize("actions", ["push,pull,delete", "push", "*"])
    async def test_asks_for_a_pull_alone__whatever_the_registry_would_give(
        self, actions: str, registry: Upstream, caller: Caller
    ) -> None:
        registry.dials.challenge_scope_text = f"repository:{APP.name}:{actions}"
        await caller.refusal()
        assert registry.counters.tokens(f"repository:{APP.name}:pull") == registry.counters.tokens() > 0

    async def test_shares_one_login__among_all_who_ask(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.latency = {"token": 0.2}
        asking = [asyncio.create_task(caller.ask()) for _ in range(20)]
        await asyncio.sleep(0.1)
        asking.pop(0).cancel()
        assert await asyncio.gather(*asking) == [200] * 19
        assert registry.counters.tokens() == 1

    async def test_shares_one_login__with_who_was_slower(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.latency = {"manifest": 1.0}
        slower = asyncio.create_task(caller.ask())
        await until(lambda: manifests(registry))
        registry.dials.latency = {}
        assert await caller.ask() == await slower == 200
        assert registry.counters.tokens() == 1

    async def test_is_not_waited_for__beyond_all_patience(
        self, registry: Upstream, caller: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(realm, "_SECONDS", 0.2)
        registry.dials.challenge_realm, registry.dials.black_hole = "foreign", {"token"}
        async with asyncio.timeout(10):
            error = await caller.refusal()
        assert error.failure is Failure.TIMEOUT
        assert registry.auth_url.removeprefix("http://") in error.message

    async def test_says_nothing_of_the_request__to_the_realm(self, registry: Upstream, caller: Caller) -> None:
        await caller.ask(OTHER, is_anonymous=True)
        await caller.ask()
        asked = [each for each in registry.counters.headers if each.path.startswith("/token")]
        assert [each.headers["Accept"] for each in asked] == ["*/*", "*/*"]

    async def test_asks_once_more__of_who_refuses_a_new_token(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.token_late = True
        assert await caller.ask() == 200
        assert (registry.counters.tokens(), manifests(registry)) == (1, 3)

    async def test_keeps_no_token__that_opens_nothing(self, registry: Upstream, caller: Caller) -> None:
        for expected in ((2, 1), (1, 1)):
            registry.counters.clear()
            assert await caller.ask(is_anonymous=True) == 401
            assert (manifests(registry), registry.counters.tokens()) == expected


class TestRemembered:
    """What a registry asked for once need not be asked for again by a request that it refuses."""

    async def test_saves_the_cold_request__in_the_same_namespace(self, registry: Upstream, caller: Caller) -> None:
        assert await caller.ask() == 200
        assert await caller.ask(OTHER) == 200
        assert (registry.counters.tokens(), manifests(registry)) == (2, 3)

    async def test_saves_the_cold_request__when_a_token_is_over(self, registry: Upstream, caller: Caller) -> None:
        assert await caller.ask() == 200
        caller.wallet.held = credential(username="ben")
        registry.dials.users = {"ben": PASSWORD}
        assert await caller.ask() == 200
        assert (registry.counters.tokens(), manifests(registry)) == (2, 3)

    async def test_is_not_believed__in_another_namespace(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.realm_path = "/api/docker/{repository}/v2/token"
        registry.push_image("more/app", "1", ("linux/amd64",), (1_000,))
        assert await caller.ask() == 200
        assert await caller.ask("more/app") == 200
        realms = [each.path.partition("?")[0] for each in registry.counters.headers if "/api/" in each.path]
        assert realms == [f"/api/docker/{each}/v2/token" for each in ("team", "more")]

    @pytest.mark.parametrize("status", [400, 404, 405])
    async def test_is_forgotten__when_it_leads_nowhere(self, status: int, registry: Upstream, caller: Caller) -> None:
        assert await caller.ask() == 200
        registry.dials.challenge_realm = "foreign"
        registry.dials.failures.append(bed.Failure(status, kind="token", times=1))
        assert await caller.ask(OTHER) == 200
        assert registry.counters.witnesses(PASSWORD) == {"registry", "auth"}

    async def test_is_forgotten__when_the_realm_is_gone(self, registry: Upstream, caller: Caller) -> None:
        with Upstream() as gone:
            registry.dials.challenge_extra = [f'Bearer realm="{gone.url}/token"']
            assert await caller.ask(is_anonymous=True) == 401
        registry.dials.challenge_extra = []
        with pytest.raises(RegistryError, match="refused the connection"):
            await caller.ask(OTHER)
        assert await caller.ask(OTHER) == 200

    async def test_is_forgotten__when_its_tokens_open_nothing(self, registry: Upstream, caller: Caller) -> None:
        assert await caller.ask() == 200
        registry.dials.challenge_scope_text = "aws"
        assert await caller.ask(OTHER) == 200
        assert registry.counters.tokens("aws") == 1

    async def test_keeps_an_opaque_scope__for_its_repository_alone(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.challenge_scope_text = "aws"
        for name in (APP.name, OTHER):
            assert await caller.ask(name) == 200
        assert (registry.counters.tokens("aws"), manifests(registry)) == (2, 4)
        caller.wallet.held = None
        assert await caller.ask(OTHER) == 200
        assert (registry.counters.tokens("aws"), manifests(registry)) == (3, 5)
        with Upstream() as mirror:
            assert await caller.ask(OTHER, base=mirror.url) == 404
        assert registry.counters.tokens("aws") == 3

    async def test_knows_what_listings_want(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.tags_scope = "metadata_read"
        for _ in range(3):
            assert await caller.ask() == 200
            assert await caller.ask(path="tags/list", kind="tags") == 200
        assert registry.counters.tokens(f"repository:{APP.name}:metadata_read") == 1
        assert registry.counters.tokens() == 2
        registry.counters.clear()
        assert await caller.ask(OTHER, path="tags/list", kind="tags") == 200
        assert registry.counters.tokens() == registry.counters.requests(kind="tags") == 1


class TestFrontPage:
    """Some registries say what they want at `/v2/` alone."""

    @pytest.mark.parametrize("status", [401, 403, 404])
    async def test_is_asked__where_the_answer_has_no_challenge(
        self, status: int, registry: Upstream, caller: Caller
    ) -> None:
        registry.dials.failures.append(bed.Failure(status, kind="manifest", times=1))
        assert await caller.ask() == 200
        assert registry.counters.requests(kind="ping") == 1

    @pytest.mark.parametrize("status", [401, 403, 404])
    async def test_is_asked_once__where_it_has_none_either(
        self, status: int, registry: Upstream, caller: Caller
    ) -> None:
        registry.dials.auth = "none"
        registry.dials.failures.append(bed.Failure(status, kind="manifest"))
        assert [await caller.ask() for _ in range(3)] == [status] * 3
        assert registry.counters.requests(kind="ping") == 1
        assert registry.counters.witnesses(PASSWORD) == set()

    @pytest.mark.parametrize("status", [403, 404])
    async def test_is_not_asked__by_nobody(self, status: int, registry: Upstream, caller: Caller) -> None:
        registry.dials.failures.append(bed.Failure(status, kind="manifest"))
        assert await caller.ask(is_anonymous=True) == status
        assert registry.counters.requests(kind="ping") == 0

    async def test_does_not_matter__when_it_fails(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.auth, registry.dials.hang_up = "none", {"ping"}
        registry.dials.failures.append(bed.Failure(404, kind="manifest"))
        assert await caller.ask() == 404


class TestBasic:
    @pytest.fixture(autouse=True)
    def basic(self, registry: Upstream) -> None:
        registry.dials.auth, registry.dials.basic_type = "basic", "text/plain"

    async def test_is_told__only_once_it_was_asked_for(self, registry: Upstream, caller: Caller) -> None:
        assert [await caller.ask() for _ in range(3)] == [200, 200, 200]
        assert [each.holds(PASSWORD) for each in registry.counters.headers] == [False, True, True, True]

    async def test_is_not_told__to_where_a_redirect_leads(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.redirect_manifests, registry.dials.auth_origins = True, {"registry"}
        assert await caller.ask() == 200
        assert registry.counters.witnesses(PASSWORD) == {"registry"}

    async def test_is_not_told__to_a_redirected_host_that_asks(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.redirect_manifests, registry.dials.auth_origins = True, {"cdn"}
        assert await caller.ask() == 401
        assert registry.counters.witnesses(PASSWORD) == set()

    async def test_is_not_told__for_what_nobody_need_log_in(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.basic_open = True
        assert await caller.ask(OTHER) == 200
        assert registry.counters.witnesses(PASSWORD) == set()
        assert await caller.ask(is_anonymous=True) == 401
        assert await caller.ask() == 200
        registry.counters.clear()
        assert await caller.ask(OTHER, is_anonymous=True) == 200
        assert await caller.ask() == 200
        assert [each.holds(PASSWORD) for each in registry.counters.headers] == [False, True]

    async def test_knows_every_letter(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.users = {USER: "päss:wörd ✓"}
        caller.wallet.held = credential("päss:wörd ✓")
        assert await caller.ask() == 200

    async def test_is_second_to_a_token(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.auth = "bearer"
        registry.dials.challenge_extra = ['Basic realm="registry"']
        assert await caller.ask() == 200
        assert registry.counters.tokens() == 1


class TestRedirectedHost:
    """What a redirect leads to may be a registry that wants a token of its own."""

    @pytest.fixture(autouse=True)
    def moved(self, registry: Upstream) -> None:
        registry.dials.redirect_manifests, registry.dials.auth_origins = True, {"cdn"}
        registry.dials.private = set()

    async def test_is_answered_as_nobody(self, registry: Upstream, caller: Caller) -> None:
        assert [await caller.ask(), await caller.ask()] == [200, 200]
        assert registry.counters.tokens() == 1
        assert registry.counters.witnesses(PASSWORD) == set()
        assert registry.counters.authorizations("registry") == []
        assert len(registry.counters.authorizations("cdn")) == 2

    async def test_keeps_its_tokens_to_itself(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.auth_origins = {"registry", "cdn"}
        assert [await caller.ask(), await caller.ask()] == [200, 200]
        own, foreign = (set(registry.counters.authorizations(origin)) for origin in ("registry", "cdn"))
        assert own
        assert foreign
        assert not {each for each in own if each.startswith("Bearer")} & foreign

    async def test_is_asked_twice_at_most(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.token_empty_grant = True
        assert await caller.ask() == 401
        assert registry.counters.tokens() <= 2


class TestTraps:
    """Whatever a registry says elsewhere than in its own answer to a cold request leads no credential anywhere."""

    async def test_do_not_catch__with_what_is_said_to_an_old_token(self, registry: Upstream, caller: Caller) -> None:
        assert await caller.ask() == 200
        registry.dials.expired_realm = f"{registry.cdn_url}/token"
        registry.expire_tokens()
        assert await caller.ask() == 200
        assert registry.counters.witnesses(PASSWORD) == {"registry"}

    async def test_do_not_catch__with_a_realm_that_redirects(self, registry: Upstream, caller: Caller) -> None:
        headers = {"Location": f"{registry.cdn_url}/token"}
        registry.dials.failures.append(bed.Failure(307, kind="token", headers=headers, times=1))
        assert (await caller.refusal()).failure is Failure.SERVER
        assert registry.counters.witnesses(PASSWORD) == {"registry"}

    async def test_do_not_hinder__a_realm_that_redirects_to_itself(self, registry: Upstream, caller: Caller) -> None:
        headers = {"Location": f"/service/token?scope=repository:{APP.name}:pull"}
        registry.dials.failures.append(bed.Failure(307, kind="token", headers=headers, times=1))
        assert await caller.ask() == 200

    @pytest.mark.parametrize(
        "realm", ["/token", "http://\xff/", "http://u:p@127.0.0.1:1/", "ftp://127.0.0.1/", "http://a b/", "http://["]
    )
    async def test_are_a_denial__where_the_realm_is_no_address(
        self, realm: str, registry: Upstream, caller: Caller
    ) -> None:
        registry.dials.challenge_extra = [f'Bearer realm="{realm}",service="x"']
        registry.dials.challenge_scheme = "Negotiate"
        error = await caller.refusal()
        assert (error.code, error.failure) == (ErrorCode.DENIED, Failure.CREDENTIALS)
        assert registry.counters.witnesses(PASSWORD) == set()

    async def test_do_not_catch__with_a_realm_in_a_private_network(
        self, registry: Upstream, caller: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def never(*_: object) -> bool:
            return False

        monkeypatch.setattr(Privacy, "is_private", never)
        port = registry.auth_url.rpartition(":")[2]
        registry.dials.challenge_extra = [f'Bearer realm="http://localhost:{port}/token",service="x"']
        assert "private address" in (await caller.refusal()).message
        assert registry.counters.witnesses(PASSWORD) == set()


class TestIdentity:
    async def test_is_the_credential_s(self, caller: Caller) -> None:
        assert await caller.identity() == credential().fingerprint
        caller.wallet.held = None
        assert await caller.identity() == ""

    async def test_is_nobody__while_there_is_none_to_be_had(self, caller: Caller) -> None:
        caller.wallet.failure = "upstream registry.example: docker-credential-x: did not end"
        assert await caller.identity() == ""

    async def test_is_nobody__while_it_is_rejected(self, caller: Caller) -> None:
        caller.wallet.held = credential("rejected")
        assert (await caller.refusal()).failure is Failure.CREDENTIALS
        assert await caller.identity() == ""
        caller.wallet.held = credential()
        assert await caller.identity() == credential().fingerprint


class TestIdentityTokens:
    TRADED: Literal["<token>"] = "<token>"

    @pytest.fixture(autouse=True)
    def refresh(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.users = {"00000000-0000-0000-0000-000000000000": PASSWORD}
        registry.dials.token_fields, registry.dials.token_post = ("access_token",), None
        registry.dials.challenge_realm, registry.dials.realm_path = "foreign", "/oauth2/token"
        caller.wallet.held = credential(username=self.TRADED, is_token=True)

    async def test_are_traded_by_post(self, registry: Upstream, caller: Caller) -> None:
        assert [await caller.ask(), await caller.ask(OTHER)] == [200, 200]
        assert registry.counters.requests("POST", "token") == registry.counters.requests(kind="token") == 2
        assert registry.counters.tokens(f"repository:{APP.name}:pull") == 1
        assert all(not each.holds(PASSWORD) for each in registry.counters.headers)
        assert registry.counters.witnesses(PASSWORD) == {"auth"}

    @pytest.mark.parametrize("status", [400, 401, 404, 405])
    async def test_are_sent_by_get__where_post_is_unknown(
        self, status: int, registry: Upstream, caller: Caller
    ) -> None:
        registry.dials.token_post = status
        assert [await caller.ask(), await caller.ask(OTHER)] == [200, 200]
        assert registry.counters.requests("POST", "token") == 1
        assert registry.counters.requests("GET", "token") == 2

    async def test_are_refused_like_passwords(self, registry: Upstream, caller: Caller) -> None:
        caller.wallet.held = credential("stale", username=self.TRADED, is_token=True)
        error = await caller.refusal()
        assert "rejects the mirror's credentials" in error.message
        assert await caller.ask(OTHER) == 200
        assert registry.counters.failed_logins <= 4


async def test_ends__with_a_login_under_way(registry: Upstream) -> None:
    registry.dials.black_hole = {"token"}
    async with calling(registry.url, credential()) as caller:
        asking = asyncio.create_task(caller.ask())
        await until(lambda: registry.counters.requests(kind="token"))
    with pytest.raises(asyncio.CancelledError):
        await asking
