"""Amazon's registries, by the real boto3 against loopback."""

from __future__ import annotations

import base64
import json
import time

import pytest
from structlog.typing import EventDict

from mirror.config import Secret
from mirror.source.upstream.credentials import Credential, Credentials
from mirror.source.upstream.credentials.ecr import Registry, registry_of
from mirror.source.upstream.daemons import DaemonThreads
from tests.source.credentials.cloud import Cloud
from tests.source.credentials.conftest import Clock, refusal, upstream

NAME = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
ASKED = upstream(NAME, provider="ecr")
PUBLIC = upstream("public.ecr.aws", provider="ecr")


def answer(password: str, seconds: float = 12 * 3600) -> dict[str, object]:
    """Return one registry's entry of what GetAuthorizationToken answers."""
    token = base64.b64encode(f"AWS:{password}".encode()).decode()
    return {"authorizationToken": token, "expiresAt": time.time() + seconds}


def lent(password: str) -> Credential:
    """Return what is lent to the user whose key is in the environment."""
    return Credential("AWS", Secret(password), account="ecr:AKIAEXAMPLE")


@pytest.fixture
def amazon(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """Return Amazon, with keys of its own in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    cloud.answers["/"] = (200, {"authorizationData": [answer("one")]})
    return cloud


class TestNames:
    @pytest.mark.parametrize(
        ("name", "registry"),
        [
            (NAME, Registry("123456789012", "eu-west-1")),
            ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", Registry("123456789012", "us-gov-west-1", True)),
            ("1.dkr.ecr.cn-north-1.amazonaws.com.cn", Registry("1", "cn-north-1")),
            ("1.dkr-ecr.eu-west-1.on.aws", Registry("1", "eu-west-1")),
            ("1.dkr-ecr-fips.us-east-1.on.aws", Registry("1", "us-east-1", True)),
            ("public.ecr.aws", Registry("", "us-east-1")),
            ("1.dkr.ecr.x.s3.amazonaws.com", None),
            ("1.dkr.ecr.eu-west-1.amazonaws.com.evil.example", None),
            ("x.dkr.ecr.eu-west-1.amazonaws.com", None),
            ("1.dkr.ecr.eu-west-1.amazonaws.com:443", Registry("1", "eu-west-1")),
            ("registry.example", None),
        ],
    )
    def test_tell__account_and_region(self, name: str, registry: Registry | None) -> None:
        assert registry_of(upstream(name)) == registry

    def test_tell__or_the_url_does(self) -> None:
        assert registry_of(upstream("images.example", f"https://{NAME}")) == Registry("123456789012", "eu-west-1")
        assert registry_of(upstream(NAME, "http://127.0.0.1:5000")) == Registry("123456789012", "eu-west-1")


class TestToken:
    async def test_is_asked_for__of_the_account_in_its_region(self, credentials: Credentials, amazon: Cloud) -> None:
        assert await credentials.of(ASKED) == lent("one")
        (request,) = amazon.requests
        assert request.headers["X-Amz-Target"].endswith(".GetAuthorizationToken")
        assert "/eu-west-1/ecr/aws4_request" in request.headers["Authorization"]
        assert json.loads(request.body) == {"registryIds": ["123456789012"]}

    async def test_is_asked_for__of_the_public_registry_in_virginia(
        self, credentials: Credentials, amazon: Cloud
    ) -> None:
        amazon.answers["/"] = (200, {"authorizationData": answer("public")})
        assert await credentials.of(PUBLIC) == lent("public")
        (request,) = amazon.requests
        assert "/us-east-1/ecr-public/aws4_request" in request.headers["Authorization"]

    async def test_is_kept__until_shortly_before_its_end(
        self, credentials: Credentials, amazon: Cloud, clock: Clock
    ) -> None:
        amazon.answers["/"] = (200, {"authorizationData": [answer("one", 600)]})
        for _ in range(3):
            assert await credentials.of(ASKED) == lent("one")
        assert len(amazon.requests) == 1
        amazon.answers["/"] = (200, {"authorizationData": [answer("two")]})
        clock.now += 620
        assert await credentials.of(ASKED) == lent("two")

    @pytest.mark.parametrize(("announced", "kept"), [(-3600, 60), (5, 60), (86_400, 43_200)])
    async def test_is_kept__a_minute_at_least_and_half_a_day_at_most(
        self, announced: float, kept: float, credentials: Credentials, amazon: Cloud, clock: Clock
    ) -> None:
        amazon.answers["/"] = (200, {"authorizationData": [answer("one", announced)]})
        assert await credentials.of(ASKED) == lent("one")
        amazon.answers["/"] = (200, {"authorizationData": [answer("two")]})
        clock.now += kept - 1
        assert await credentials.of(ASKED) == lent("one")
        clock.now += 2
        assert await credentials.of(ASKED) == lent("two")

    async def test_is_asked_for_again__once_it_was_refused(
        self, credentials: Credentials, amazon: Cloud, clock: Clock
    ) -> None:
        found = await credentials.of(ASKED)
        assert found is not None
        amazon.answers["/"] = (200, {"authorizationData": [answer("two")]})
        credentials.refused(ASKED, found)
        assert await credentials.of(ASKED) == found
        clock.now += 60
        assert await credentials.of(ASKED) == lent("two")


class TestIdentity:
    async def test_is_the_user_s__whichever_password_each_replica_is_lent(
        self, credentials: Credentials, amazon: Cloud
    ) -> None:
        first = await credentials.of(ASKED)
        amazon.answers["/"] = (200, {"authorizationData": [answer("two")]})
        other = Credentials(DaemonThreads())
        second = await other.of(ASKED)
        await other.close()
        assert first is not None
        assert second is not None
        assert first.secret != second.secret
        assert first.identity == second.identity

    async def test_is_another__for_another_user(
        self, credentials: Credentials, amazon: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = await credentials.of(ASKED)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAANOTHER")
        other = Credentials(DaemonThreads())
        second = await other.of(ASKED)
        await other.close()
        assert first is not None
        assert second is not None
        assert first.secret == second.secret
        assert first.identity != second.identity

    async def test_is_the_password_s__where_keys_are_of_one_session(
        self, credentials: Credentials, amazon: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "session")
        assert await credentials.of(ASKED) == Credential("AWS", Secret("one"))


class TestFailures:
    async def test_are_clear__where_amazon_says_no(
        self, credentials: Credentials, amazon: Cloud, logged: list[EventDict]
    ) -> None:
        message = "User: arn:x is not allowed. The Canonical String was 'x-amz-security-token:hush'"
        amazon.answers["/"] = (400, {"__type": "AccessDeniedException", "message": message})
        assert (await refusal(credentials, ASKED)).endswith("provider ecr: Amazon gave no password")
        assert logged[0]["detail"] == "AccessDeniedException: User: arn:x is not allowed"

    async def test_are_clear__where_there_are_no_keys(
        self, credentials: Credentials, amazon: Cloud, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
    ) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        await refusal(credentials, ASKED)
        assert logged[0]["detail"] == "NoCredentialsError: Unable to locate credentials"
        assert amazon.requests == []

    @pytest.mark.parametrize(
        "content", [{}, {"authorizationData": []}, {"authorizationData": [{"authorizationToken": "aHVzaA=="}]}, b"hush"]
    )
    async def test_are_clear__where_the_answer_is_none(
        self, content: object, credentials: Credentials, amazon: Cloud, logged: list[EventDict]
    ) -> None:
        amazon.answers["/"] = (200, content)
        assert "provider ecr" in await refusal(credentials, ASKED)
        assert "hush" not in str(logged)

    async def test_are_not_repeated__until_a_while_has_passed(
        self, credentials: Credentials, amazon: Cloud, clock: Clock
    ) -> None:
        amazon.answers["/"] = (400, {"__type": "AccessDeniedException", "message": "no"})
        for _ in range(3):
            await refusal(credentials, ASKED)
        assert len(amazon.requests) == 1
        amazon.answers["/"] = (200, {"authorizationData": [answer("one")]})
        clock.now += 15
        assert await credentials.of(ASKED) is not None

    async def test_cost_little_time__where_amazon_hangs(
        self, credentials: Credentials, amazon: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mirror.source.upstream.credentials.leases._PATIENCE_SECONDS", 0.5)
        amazon.silent.set()
        assert (await refusal(credentials, ASKED)).endswith("provider ecr does not answer")
        assert await credentials.of(upstream(username="u", password=Secret("p"))) is not None

    async def test_are_clear__for_a_name_that_is_no_such_registry_s(self, credentials: Credentials) -> None:
        text = await refusal(credentials, upstream("x.example", provider="ecr"))
        assert text.endswith("provider ecr: neither its name nor its url is that of such a registry")
