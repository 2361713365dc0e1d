"""The bearer-token dance, in the shapes that registries give it."""

from __future__ import annotations

import asyncio

import pytest

from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository, Tag
from mirror.source.upstream.tokens import Scope, Step, Tokens
from tests import upstream as bed
from tests.source.callers import Clock
from tests.source.conftest import APP, HOST, Source
from tests.upstream import Upstream

TAG = Tag("1")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the registry's clock: as it moves, tokens that were given out grow old there."""
    moved = Clock()
    monkeypatch.setattr("tests.upstream.tokens.time", moved)
    return moved


@pytest.fixture
def guarded(upstream: Upstream) -> Upstream:
    """Return the registry with an image, open to those who bring a token."""
    upstream.push_image(APP.name, TAG, layers=(1_000,))
    upstream.dials.auth = "bearer"
    return upstream


async def refusal(source: Source) -> RegistryError:
    """Fetch what cannot be had, and return the error."""
    with pytest.raises(RegistryError) as refused:
        await source.manifests.fetch(source.upstream, APP, TAG)
    return refused.value


def token_requests(upstream: Upstream) -> int:
    return upstream.counters.requests(kind="token")


class TestDance:
    async def test_asks_for_one_token__and_keeps_it(self, guarded: Upstream, source: Source) -> None:
        for _ in range(3):
            await source.manifests.fetch(source.upstream, APP, TAG)
        assert token_requests(guarded) == 1
        assert guarded.counters.requests(kind="manifest") == 4
        assert source.counted("layover_upstream_requests_total", kind="token", method="GET", status="200") == 1
        assert source.counted("layover_upstream_requests_total", kind="manifest", method="GET", status="401") == 1

    async def test_asks_for_a_token__of_each_repository(self, guarded: Upstream, source: Source) -> None:
        other = Repository(HOST, "library/other")
        guarded.push_image(other.name, TAG, layers=(1_000,))
        for repository in (APP, other, APP, other):
            await source.manifests.fetch(source.upstream, repository, TAG)
        assert token_requests(guarded) == 2

    async def test_asks_anonymously__for_a_pull_alone(self, guarded: Upstream, source: Source) -> None:
        await source.manifests.fetch(source.upstream, APP, TAG)
        (asked,) = [each for each in guarded.counters.headers if each.path.startswith("/token")]
        assert asked.method == "GET"
        assert "Authorization" not in asked.headers
        assert asked.path == "/token?service=registry.test&scope=repository%3Alibrary%2Fapp%3Apull"

    async def test_sends_no_token__before_it_was_challenged(self, upstream: Upstream, source: Source) -> None:
        upstream.push_image(APP.name, TAG, layers=(1_000,))
        await source.manifests.fetch(source.upstream, APP, TAG)
        assert token_requests(upstream) == 0


class TestChallenges:
    @pytest.mark.parametrize(
        "dials",
        [
            {"challenge_service": None},
            {"challenge_quotes": False},
            {"challenge_scheme": "bEaReR"},
            {"challenge_extra": ["Negotiate", 'Basic realm="registry"']},
            {"challenge_parameters": r'error="a \"quoted\" word",'},
            {"challenge_scope": "never"},
            {"challenge_scope_text": "aws"},
            {"challenge_realm": "foreign"},
            {"challenge_extra": ['Bearer realm="/token",service="registry.test"']},
        ],
        ids=str,
    )
    async def test_are_answered(self, dials: dict[str, object], guarded: Upstream, source: Source) -> None:
        for name, value in dials.items():
            setattr(guarded.dials, name, value)
        await source.manifests.fetch(source.upstream, APP, TAG)
        assert token_requests(guarded) == 1

    async def test_are_answered__where_a_head_s_names_no_scope(self, guarded: Upstream, source: Source) -> None:
        guarded.dials.challenge_scope = "get"
        await source.manifests.head(source.upstream, APP, TAG)
        await source.manifests.fetch(source.upstream, APP, TAG)
        assert token_requests(guarded) == 1

    @pytest.mark.parametrize("realm", ["ftp://127.0.0.1/", "http://", "http://[::1", "http://h:99999/", "http://a b/"])
    async def test_are_an_error__where_the_realm_is_no_address(
        self, realm: str, guarded: Upstream, source: Source
    ) -> None:
        guarded.dials.challenge_extra = [f'Bearer realm="{realm}",service="x"']
        assert (await refusal(source)).failure is not None

    async def test_of_another_kind__are_a_denial(self, guarded: Upstream, source: Source) -> None:
        guarded.dials.auth = "basic"
        error = await refusal(source)
        assert (error.code, error.failure) == (ErrorCode.DENIED, Failure.CREDENTIALS)
        assert token_requests(guarded) == 0


class TestTokenAnswers:
    @pytest.mark.parametrize(
        "dials",
        [
            {"token_fields": ("token",)},
            {"token_fields": ("access_token",)},
            {"token_fields": ("token", "access_token")},
            {"token_expires_in": None},
            {"token_expires_in": 0},
            {"token_expires_in": 30},
            {"token_expires_in": -1},
            {"token_issued_at": "2001-01-01T00:00:00.123456789Z"},
            {"token_issued_at": "2101-01-01T00:00:00Z"},
            {"token_issued_at": "yesterday"},
            {"token_type": "text/plain"},
        ],
        ids=str,
    )
    async def test_are_understood__and_kept(self, dials: dict[str, object], guarded: Upstream, source: Source) -> None:
        for name, value in dials.items():
            setattr(guarded.dials, name, value)
        for _ in range(2):
            await source.manifests.fetch(source.upstream, APP, TAG)
        assert token_requests(guarded) == 1

    @pytest.mark.parametrize("dials", [{"token_fields": ()}, {"token_shape": "broken"}], ids=["neither", "no JSON"])
    async def test_without_a_token__are_a_denial_after_two(
        self, dials: dict[str, object], guarded: Upstream, source: Source
    ) -> None:
        for name, value in dials.items():
            setattr(guarded.dials, name, value)
        error = await refusal(source)
        assert (error.code, error.failure) == (ErrorCode.DENIED, Failure.CREDENTIALS)
        assert token_requests(guarded) <= 2

    async def test_without_a_grant__are_a_denial_after_two(self, guarded: Upstream, source: Source) -> None:
        guarded.dials.token_empty_grant = True
        error = await refusal(source)
        assert (error.code, error.failure) == (ErrorCode.DENIED, Failure.CREDENTIALS)
        assert token_requests(guarded) <= 2

    async def test_without_an_end__are_cut_off(self, guarded: Upstream, source: Source) -> None:
        guarded.dials.token_shape = "huge"
        error = await refusal(source)
        assert (error.code, error.failure) == (ErrorCode.UNAVAILABLE, Failure.SERVER)

    @pytest.mark.parametrize("status", [401, 403, 404])
    async def test_that_refuse__speak_of_the_mirror_not_of_the_image(
        self, status: int, guarded: Upstream, source: Source
    ) -> None:
        guarded.dials.failures.append(bed.Failure(status, kind="token"))
        error = await refusal(source)
        assert (error.code, error.failure) == (ErrorCode.DENIED, Failure.CREDENTIALS)
        assert token_requests(guarded) <= 2

    async def test_that_fail__are_asked_for_again(self, guarded: Upstream, source: Source) -> None:
        guarded.dials.failures.append(bed.Failure(503, kind="token", times=2))
        await source.manifests.fetch(source.upstream, APP, TAG)
        assert token_requests(guarded) == 3

    async def test_that_keep_failing__are_the_upstream_s_failure(self, guarded: Upstream, source: Source) -> None:
        guarded.dials.failures.append(bed.Failure(502, kind="token"))
        error = await refusal(source)
        assert (error.code, error.failure) == (ErrorCode.UNAVAILABLE, Failure.SERVER)


class TestRefusedTokens:
    async def test_are_tried_again__when_fresh(self, guarded: Upstream, source: Source) -> None:
        guarded.dials.token_late = True
        await source.manifests.fetch(source.upstream, APP, TAG)
        assert token_requests(guarded) <= 2

    async def test_are_replaced__once_expired(self, guarded: Upstream, source: Source, clock: Clock) -> None:
        for _ in range(3):
            await source.manifests.fetch(source.upstream, APP, TAG)
            clock.ahead += 1000
        assert token_requests(guarded) == 3

    async def test_are_replaced__by_a_cold_probe_where_expiry_brings_no_challenge(
        self, guarded: Upstream, source: Source, clock: Clock
    ) -> None:
        guarded.dials.expired_challenge = False
        await source.manifests.fetch(source.upstream, APP, TAG)
        clock.ahead += 1000
        await source.manifests.fetch(source.upstream, APP, TAG)
        assert token_requests(guarded) == 2

    async def test_are_replaced__by_a_cold_probe_where_expiry_names_a_dead_end(
        self, guarded: Upstream, source: Source, clock: Clock
    ) -> None:
        guarded.dials.expired_realm = f"{guarded.cdn_url}/dead-end"
        await source.manifests.fetch(source.upstream, APP, TAG)
        clock.ahead += 1000
        await source.manifests.fetch(source.upstream, APP, TAG)
        assert token_requests(guarded) == 2

    async def test_are_a_denial__for_a_repository_that_stays_closed(self, guarded: Upstream, source: Source) -> None:
        guarded.dials.private = {APP.name}
        error = await refusal(source)
        assert (error.code, error.failure) == (ErrorCode.DENIED, Failure.CREDENTIALS)
        assert token_requests(guarded) <= 2


def ignore(_: int) -> None:
    """Take no note of a step."""


class TestCache:
    SCOPE = Scope("https://registry.example", "library/app")

    async def test_shares__one_request_among_those_who_wait(self) -> None:
        tokens, answered, asked = Tokens(), asyncio.Event(), []

        async def fetch(_: Step) -> bytes:
            asked.append(1)
            await answered.wait()
            return b'{"token": "t"}'

        waiting = [asyncio.create_task(tokens.ask(self.SCOPE, ignore, fetch)) for _ in range(5)]
        await asyncio.sleep(0)
        waiting.pop().cancel()
        answered.set()
        assert await asyncio.gather(*waiting) == ["t"] * 4
        assert len(asked) == 1
        assert tokens.get(self.SCOPE) == "t"
        assert tokens.get(self.SCOPE._replace(repository="library/other")) is None

    async def test_tells__everybody_who_waits_of_each_step(self) -> None:
        tokens, joined, told = Tokens(), asyncio.Event(), [0, 0, 0]

        def counts(place: int) -> Step:
            def step(weight: int) -> None:
                told[place] += weight

            return step

        async def fetch(step: Step) -> bytes:
            await joined.wait()
            step(1)
            step(2)
            return b'{"token": "t"}'

        waiting = [asyncio.create_task(tokens.ask(self.SCOPE, counts(place), fetch)) for place in range(3)]
        await asyncio.sleep(0)
        joined.set()
        await asyncio.gather(*waiting)
        assert told == [3, 3, 3]

    @pytest.mark.parametrize(("announced", "kept"), [(None, 60), (0, 60), (30, 60), (300, 300), (86400, 86400)])
    async def test_believes__a_lifetime_of_a_minute_or_more_and_renews_early(
        self, announced: int | None, kept: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = Clock()
        monkeypatch.setattr("mirror.source.upstream.expiring.time", clock)
        tokens = Tokens()

        async def fetch(_: Step) -> bytes:
            return b'{"token": "t"}' if announced is None else b'{"token": "t", "expires_in": %d}' % announced

        await tokens.ask(self.SCOPE, ignore, fetch)
        clock.ahead = kept * 0.85
        assert tokens.get(self.SCOPE) == "t"
        clock.ahead = kept * 0.95
        assert tokens.get(self.SCOPE) is None

    @pytest.mark.parametrize("announced", ["1e308", "-1e308", '"nan"', '"soon"', "null", "[]", "true", '"7"'])
    async def test_survives__any_lifetime(self, announced: str, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock()
        monkeypatch.setattr("mirror.source.upstream.expiring.time", clock)
        tokens = Tokens()

        async def fetch(_: Step) -> bytes:
            return b'{"token": "t", "expires_in": %s, "issued_at": 5}' % announced.encode()

        assert await tokens.ask(self.SCOPE, ignore, fetch) == "t"
        assert tokens.get(self.SCOPE) == "t"
        clock.ahead = 86400
        assert tokens.get(self.SCOPE) is None

    async def test_remembers__for_a_moment_that_nobody_gets_any(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock, asked = Clock(), []
        monkeypatch.setattr("mirror.source.upstream.expiring.time", clock)
        tokens = Tokens()

        async def refuse(_: Step) -> bytes:
            asked.append(1)
            raise RegistryError(ErrorCode.DENIED, "no token", failure=Failure.CREDENTIALS)

        async def ask(scope: Scope) -> bool:
            with pytest.raises(RegistryError, match="no token") as refused:
                await tokens.ask(scope, ignore, refuse)
            return refused.value.is_remembered

        assert [await ask(self.SCOPE) for _ in range(3)] == [False, True, True]
        somebody = self.SCOPE._replace(fingerprint="f")
        assert [await ask(somebody) for _ in range(3)] == [False] * 3
        assert len(asked) == 4
        clock.ahead = 5
        assert not await ask(self.SCOPE)

    async def test_forgets__only_the_token_that_was_refused(self) -> None:
        tokens = Tokens()

        async def fetch(_: Step) -> bytes:
            return b'{"access_token": "new"}'

        await tokens.ask(self.SCOPE, ignore, fetch)
        tokens.drop(self.SCOPE, "old")
        assert tokens.get(self.SCOPE) == "new"
        tokens.drop(self.SCOPE, "new")
        assert tokens.get(self.SCOPE) is None

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"[]",
            b'{"token": 5}',
            b'{"token": "a\\nb"}',
            b'{"token": "\xff"}',
            b"[" * 9999,
            b'{"token":"%s"}' % (b"x" * 20_000),
        ],
    )
    async def test_keeps_nothing__of_an_answer_without_a_usable_token(self, answer: bytes) -> None:
        tokens = Tokens()

        async def fetch(_: Step) -> bytes:
            return answer

        assert await tokens.ask(self.SCOPE, ignore, fetch) is None
        assert tokens.get(self.SCOPE) is None
