"""Credentials that are refused: anonymous callers' content is still had, and they are not sent again and again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from mirror.oci.errors import ErrorCode, Failure
from mirror.source.upstream import accounts
from tests import upstream as bed
from tests.source.callers import APP, PASSWORD, USER, WRONG, Caller, Clock, calling, credential, until
from tests.upstream import Upstream

PUBLIC = "team/public"
MANY = [f"team/app{number}" for number in range(40)]


@pytest.fixture
def registry(upstream: Upstream) -> Upstream:
    """Return a registry that asks for tokens, with a private image and many public ones."""
    upstream.push_image(APP.name, "1", ("linux/amd64",), (1_000,))
    for name in (PUBLIC, *MANY):
        upstream.push_manifest(name, "1", b'{"schemaVersion": 2}', "text/plain")
    upstream.dials.auth, upstream.dials.users, upstream.dials.private = "bearer", {USER: PASSWORD}, {APP.name}
    return upstream


@pytest.fixture
async def caller(registry: Upstream) -> AsyncIterator[Caller]:
    async with calling(registry.url, credential()) as found:
        yield found


@pytest.fixture
async def mistaken(registry: Upstream) -> AsyncIterator[Caller]:
    async with calling(registry.url, credential(WRONG)) as found:
        yield found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the mirror's clock."""
    moved = Clock()
    monkeypatch.setattr("mirror.source.upstream.accounts.time", moved)
    monkeypatch.setattr("mirror.source.upstream.expiring.time", moved)
    return moved


@pytest.fixture
def lines() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as found:
        yield found


class TestWrong:
    @pytest.fixture(params=["bearer", "basic"], autouse=True)
    def auth(self, request: pytest.FixtureRequest, registry: Upstream) -> None:
        registry.dials.auth, registry.dials.basic_open = request.param, True

    @pytest.fixture(params=[401, 403], autouse=True)
    def status(self, request: pytest.FixtureRequest, registry: Upstream) -> None:
        registry.dials.wrong_password = request.param

    async def test_leave_what_is_public(self, registry: Upstream, mistaken: Caller) -> None:
        assert [await mistaken.ask(PUBLIC) for _ in range(3)] == [200, 200, 200]
        assert registry.counters.failed_logins <= 2
        registry.counters.clear()
        assert await mistaken.ask(MANY[0]) == 200
        assert registry.counters.requests(kind="manifest") == 1

    async def test_deny_what_is_private__and_say_why(self, registry: Upstream, mistaken: Caller) -> None:
        for _ in range(3):
            error = await mistaken.refusal()
            assert (error.code, error.failure) == (ErrorCode.DENIED, Failure.CREDENTIALS)
            assert error.message == "upstream registry.example rejects the mirror's credentials (user ann)"
        assert 1 <= registry.counters.failed_logins <= 2
        assert await mistaken.identity() == ""

    async def test_are_not_hammered(self, registry: Upstream, mistaken: Caller) -> None:
        registry.dials.private = set(MANY)
        registry.dials.login_limit = 30
        for name in MANY:
            assert (await mistaken.refusal(name)).failure is Failure.CREDENTIALS
        assert 1 <= registry.counters.failed_logins <= 2

    async def test_are_not_hammered__by_many_at_once(self, registry: Upstream, mistaken: Caller) -> None:
        registry.dials.private = set(MANY)
        await asyncio.gather(*(mistaken.refusal(name) for name in MANY))
        assert 1 <= registry.counters.failed_logins <= 2

    async def test_are_not_hammered__when_they_go_wrong(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.private = {APP.name, *MANY}
        assert await caller.ask() == 200
        registry.dials.users = {USER: "rotated"}
        await asyncio.gather(*(caller.refusal(name) for name in MANY))
        assert 1 <= registry.counters.failed_logins <= 20
        assert "rejects" in (await caller.refusal(MANY[0])).message

    async def test_are_tried_again__within_a_minute(
        self, registry: Upstream, mistaken: Caller, clock: Clock, lines: list[MutableMapping[str, Any]]
    ) -> None:
        registry.dials.private = {APP.name, *MANY}
        for _ in range(3):
            failed = registry.counters.failed_logins
            await mistaken.refusal()
            await mistaken.refusal(MANY[0])
            assert 1 <= registry.counters.failed_logins - failed <= 2
            clock.ahead += 40
            failed = registry.counters.failed_logins
            await mistaken.refusal()
            assert registry.counters.failed_logins == failed
            clock.ahead += 15
        registry.dials.users = {USER: WRONG}
        assert await mistaken.ask() == 200
        assert await mistaken.ask(MANY[0]) == 200
        assert await mistaken.identity() == credential(WRONG).fingerprint
        assert [(each["log_level"], each["event"]) for each in lines] == [
            ("warning", "credentials are rejected"),
            ("info", "credentials are accepted again"),
        ]
        assert WRONG not in str(lines)

    async def test_are_not_hammered__for_one_repository(self, registry: Upstream, caller: Caller, clock: Clock) -> None:
        assert await caller.ask() == 200
        registry.dials.private, registry.dials.users = set(MANY), {USER: "rotated"}
        for _ in range(30):
            await caller.refusal(MANY[0])
            clock.ahead += 6
        assert 1 <= registry.counters.failed_logins <= 12

    async def test_are_replaced_at_once(self, mistaken: Caller) -> None:
        await mistaken.refusal()
        mistaken.wallet.held = credential()
        assert await mistaken.ask() == 200

    async def test_are_renewed_once__where_they_were_lent(self, registry: Upstream, caller: Caller) -> None:
        caller.wallet.held, caller.wallet.renewed = credential("over"), [credential()]
        assert await caller.ask() == 200
        assert [each.fingerprint for each in caller.wallet.refusals] == [credential("over").fingerprint]
        assert registry.counters.failed_logins <= 2

    async def test_are_renewed__long_after_they_were_good(
        self, registry: Upstream, caller: Caller, clock: Clock
    ) -> None:
        registry.dials.private = {APP.name, PUBLIC}
        assert await caller.ask() == 200
        clock.ahead += 600
        registry.dials.users = {USER: "new"}
        caller.wallet.renewed = [credential("new")]
        assert await caller.ask(PUBLIC) == 200

    async def test_are_renewed_once__and_no_more_if_that_is_no_use(self, registry: Upstream, caller: Caller) -> None:
        caller.wallet.held = credential("over")
        caller.wallet.renewed = [credential(f"over too {number}") for number in range(9)]
        for _ in range(3):
            assert (await caller.refusal()).failure is Failure.CREDENTIALS
        assert len(caller.wallet.refusals) == 1
        assert registry.counters.failed_logins <= 4


class TestBanned:
    async def test_leaves_what_is_public(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.login_limit = 1
        caller.wallet.held = credential(WRONG)
        await caller.refusal()
        caller.wallet.held = credential()
        assert await caller.ask(PUBLIC) == 200
        assert "rejects" in (await caller.refusal()).message


class TestGood:
    """Good credentials may be refused for one repository."""

    @pytest.fixture(params=[401, 403], autouse=True)
    def denying(self, request: pytest.FixtureRequest, registry: Upstream) -> None:
        registry.dials.token_denied = request.param

    async def test_are_known_to_be_good__though_refused_at_first(
        self, registry: Upstream, caller: Caller, lines: list[MutableMapping[str, Any]]
    ) -> None:
        error = await caller.refusal("team/missing")
        assert (error.code, error.failure) == (ErrorCode.DENIED, Failure.CREDENTIALS)
        assert error.message.endswith("gives the mirror's credentials (user ann) no access to team/missing")
        assert await caller.ask() == 200
        assert await caller.identity() == credential().fingerprint
        assert lines == []
        assert registry.counters.failed_logins == 0

    async def test_stay_good__however_many_are_refused(self, registry: Upstream, caller: Caller) -> None:
        assert await caller.ask() == 200
        for number in range(10):
            await caller.refusal(f"team/missing{number}")
        await asyncio.gather(*(caller.refusal(f"team/absent{number}") for number in range(10)))
        registry.expire_tokens()
        assert await caller.ask() == 200

    async def test_are_not_sent_again__for_the_same_repository(
        self, registry: Upstream, caller: Caller, clock: Clock
    ) -> None:
        assert await caller.ask() == 200
        for _ in range(3):
            await caller.refusal("team/missing")
        assert self.logins(registry, "team/missing") == 1
        clock.ahead += 6
        await caller.refusal("team/missing")
        assert self.logins(registry, "team/missing") == 2

    async def test_cost_nobody_s_token_once_in_a_while(self, registry: Upstream, caller: Caller, clock: Clock) -> None:
        for _ in range(5):
            assert (await caller.refusal("team/missing")).failure is Failure.CREDENTIALS
        anonymous = registry.counters.requests(kind="token") - self.logins(registry, "team/missing")
        assert anonymous <= 2
        clock.ahead += 5
        await caller.refusal("team/missing")
        assert registry.counters.requests(kind="token") - self.logins(registry, "team/missing") == anonymous + 1

    def logins(self, registry: Upstream, repository: str) -> int:
        name = repository.replace("/", "%2F")
        return sum(each.holds(PASSWORD) and name in each.path for each in registry.counters.headers)


class TestNoHelp:
    """A credential may be good, get a token, and open less than nobody may have."""

    @pytest.mark.parametrize("error", ["invalid_token", "insufficient_scope"])
    async def test_leaves_what_is_public(self, error: str, registry: Upstream, caller: Caller) -> None:
        challenge = f'Bearer realm="{registry.url}/token",scope="repository:{PUBLIC}:pull",error="{error}"'
        tries = 2 if error == "invalid_token" else 1
        refusal = bed.Failure(401, kind="manifest", skip=0, times=tries, headers={"WWW-Authenticate": challenge})
        assert await caller.ask() == 200
        registry.dials.failures.append(refusal)
        assert await caller.ask(PUBLIC) == 200
        assert refusal.times == 0
        registry.counters.clear()
        assert await caller.ask(PUBLIC) == 200
        assert registry.counters.requests() == 1

    async def test_is_the_registry_s_word__where_it_denies_by_403(self, registry: Upstream, caller: Caller) -> None:
        assert await caller.ask(PUBLIC) == 200
        registry.dials.failures.append(bed.Failure(403, kind="manifest"))
        registry.counters.clear()
        assert await caller.ask(PUBLIC) == 403
        assert registry.counters.requests(kind="manifest") == 2
        assert registry.counters.requests(kind="token") == 1

    async def test_ends__where_tokens_open_nothing(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.token_empty_grant = True
        assert (await caller.refusal()).failure is Failure.CREDENTIALS
        assert registry.counters.tokens() == 2
        assert registry.counters.requests(kind="manifest") <= 4

    async def test_ends__where_tokens_are_over_at_once(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.token_lifetime = 0
        assert (await caller.refusal()).failure is Failure.CREDENTIALS
        assert registry.counters.tokens() == 2
        assert registry.counters.requests(kind="manifest") <= 5


class TestMissing:
    """Credentials that should be there cannot be had."""

    async def test_leaves_what_is_public(self, caller: Caller) -> None:
        caller.wallet.failure = "upstream registry.example: docker-credential-x: did not end within 10 s"
        assert await caller.ask(PUBLIC) == 200

    async def test_says_why_what_is_private_is_denied(self, caller: Caller) -> None:
        caller.wallet.failure = "upstream registry.example: docker-credential-x: did not end within 10 s"
        error = await caller.refusal()
        assert (error.code, error.failure, error.message) == (
            ErrorCode.DENIED,
            Failure.CREDENTIALS,
            caller.wallet.failure,
        )


class TestHidden:
    """To nobody, some registries say 404 of what is private."""

    @pytest.fixture(autouse=True)
    def hiding(self, registry: Upstream) -> None:
        registry.dials.auth, registry.dials.basic_open = "basic", True

    async def test_is_no_word__while_credentials_are_refused(self, registry: Upstream, mistaken: Caller) -> None:
        await mistaken.refusal()
        registry.dials.failures.append(bed.Failure(404, kind="manifest"))
        error = await mistaken.refusal()
        assert (error.code, error.failure) == (ErrorCode.DENIED, Failure.CREDENTIALS)

    async def test_is_a_word__of_what_is_public(self, registry: Upstream, mistaken: Caller) -> None:
        assert await mistaken.ask(PUBLIC) == 200
        await mistaken.refusal()
        assert await mistaken.ask(PUBLIC, path="manifests/none") == 404

    async def test_is_a_word__to_who_logs_in(self, registry: Upstream, caller: Caller) -> None:
        assert await caller.ask(path="manifests/none") == 404


class TestFailing:
    """What fails is no refusal."""

    @pytest.mark.parametrize(
        ("status", "failure"), [(429, Failure.TOO_MANY), (500, Failure.SERVER), (503, Failure.SERVER)]
    )
    async def test_is_told_as_it_is(self, status: int, failure: Failure, registry: Upstream, caller: Caller) -> None:
        registry.dials.failures.append(bed.Failure(status, kind="token", retry_after="7", times=1))
        error = await caller.refusal()
        assert (error.failure, error.retry_after) == (failure, 7)
        assert await caller.ask() == 200

    async def test_leaves_passwords_that_were_good(self, registry: Upstream, caller: Caller) -> None:
        registry.dials.auth = "basic"
        assert await caller.ask() == 200
        registry.dials.users = {USER: "wrong for a moment"}
        registry.dials.failures.append(bed.Failure(502, kind="ping", times=1))
        for name in MANY[:3]:
            await caller.refusal(name)
        assert registry.counters.requests(kind="ping") == 1
        registry.dials.users = {USER: PASSWORD}
        assert await caller.ask(PUBLIC) == 200
        assert await caller.identity() == credential().fingerprint

    async def test_leaves_logins_that_were_good(self, registry: Upstream, caller: Caller) -> None:
        assert await caller.ask() == 200
        registry.dials.anonymous, registry.dials.users = False, {USER: "wrong for a moment"}
        # The third login is followed by one for no repository at all.
        registry.dials.failures.append(bed.Failure(502, kind="token", skip=5, times=1))
        for name in MANY[:3]:
            await caller.refusal(name)
        assert not registry.dials.failures[0].times
        registry.dials.users = {USER: PASSWORD}
        assert await caller.ask(PUBLIC) == 200
        assert await caller.identity() == credential().fingerprint

    async def test_makes_nobody_wait_for_ever(
        self, registry: Upstream, caller: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(accounts, "_LONGEST_WAIT", 0.3)
        registry.dials.black_hole = {"token"}
        first = asyncio.create_task(caller.ask())
        await until(lambda: registry.counters.requests(kind="token"))
        error = await caller.refusal(PUBLIC)
        assert error.failure is Failure.TIMEOUT
        assert "too much at a time" in error.message
        first.cancel()


async def test_is_not_sure__of_a_front_page_that_is_open_to_all(registry: Upstream, mistaken: Caller) -> None:
    registry.dials.auth, registry.dials.ping_open = "basic", True
    for name in MANY[:10]:
        await mistaken.refusal(name)
    assert registry.counters.failed_logins == 1
