"""Azure's registries, by the real azure-identity against loopback."""

from __future__ import annotations

import base64
import json
import time
from urllib.parse import unquote

import pytest
from structlog.typing import EventDict

from mirror.config import Secret, Upstream
from mirror.source.upstream.credentials import Credential, Credentials
from tests.source.credentials.cloud import ENDLESS, Cloud
from tests.source.credentials.conftest import Clock, refusal, upstream

USER = "00000000-0000-0000-0000-000000000000"
NAME = "team.azurecr.io"


def jwt(name: str, seconds: float = 10_800) -> str:
    """Return a token that says how long it is good for, by a clock that is a year ahead."""
    now = time.time() + 365 * 86_400
    return token({"jti": name, "iat": now, "exp": now + seconds})


def token(claims: dict[str, object]) -> str:
    """Return a token that says something of itself."""
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.signature"


@pytest.fixture
def azure(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """Return Azure, both the identity that it lends a program and a registry."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{cloud.url}/identity")
    monkeypatch.setenv("IDENTITY_HEADER", "header")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    lent = {"access_token": "hush", "expires_on": str(int(time.time()) + 3600), "token_type": "Bearer"}
    cloud.answers["/identity"] = (200, {**lent, "resource": "x"})
    cloud.answers["/oauth2/exchange"] = (200, {"refresh_token": jwt("one")})
    return cloud


@pytest.fixture
def asked(azure: Cloud) -> Upstream:
    return upstream(NAME, azure.url, provider="azure")


async def test_is_the_registry_s_token__for_the_identity_s(
    credentials: Credentials, azure: Cloud, asked: Upstream
) -> None:
    found = await credentials.of(asked)
    assert found is not None
    assert found.username == USER
    assert found.secret.startswith("e30.")
    identity, exchange = azure.requests
    assert unquote(identity.path).endswith("resource=https://containerregistry.azure.net")
    assert (exchange.method, exchange.path) == ("POST", "/oauth2/exchange")
    assert exchange.form == {"grant_type": "access_token", "service": NAME, "access_token": "hush"}


async def test_names_the_service__by_the_url_where_the_name_is_another(credentials: Credentials, azure: Cloud) -> None:
    assert await credentials.of(upstream("images.example", azure.url, provider="azure")) is not None
    assert azure.requests[-1].form["service"] == "127.0.0.1"


async def test_is_renewed__when_its_own_clock_says(
    credentials: Credentials, azure: Cloud, asked: Upstream, clock: Clock
) -> None:
    first = await credentials.of(asked)
    second = jwt("two")
    azure.answers["/oauth2/exchange"] = (200, {"refresh_token": second})
    clock.now += 10_000
    assert await credentials.of(asked) == first
    clock.now += 900
    assert await credentials.of(asked) == Credential(USER, Secret(second))


async def test_is_used__though_it_says_nothing_of_its_end(
    credentials: Credentials, azure: Cloud, asked: Upstream
) -> None:
    for token in ("opaque", "a.b.c", "a.e30.c", "a..c"):
        azure.answers["/oauth2/exchange"] = (200, {"refresh_token": token})
        known = asked._replace(name=f"{token.replace('.', '-')}.azurecr.io")
        assert await credentials.of(known) == Credential(USER, Secret(token))


async def test_names_the_principal__where_the_identity_s_token_does(
    credentials: Credentials, azure: Cloud, asked: Upstream
) -> None:
    lent = {"expires_on": str(int(time.time()) + 3600), "token_type": "Bearer", "resource": "x"}
    azure.answers["/identity"] = (200, {**lent, "access_token": token({"tid": "tenant", "oid": "object"})})
    found = await credentials.of(asked)
    assert found is not None
    assert found.account == "azure:tenant:object"


class TestFailures:
    @pytest.mark.parametrize(
        ("status", "answer", "reason"),
        [
            (401, {"errors": [{"code": "UNAUTHORIZED"}], "x": "hush"}, "token exchange answered with status 401"),
            (200, {"access_token": "hush"}, "token exchange answered without a token"),
            (200, b"hush", "token exchange answered without a token"),
            (200, ENDLESS, "token exchange answered without a token"),
            (200, {"refresh_token": "hush\n"}, "holds a line break"),
            (307, b"", "token exchange answered with status 307"),
        ],
    )
    async def test_of_the_exchange__are_clear(
        self,
        status: int,
        answer: object,
        reason: str,
        credentials: Credentials,
        azure: Cloud,
        asked: Upstream,
        logged: list[EventDict],
    ) -> None:
        azure.answers["/oauth2/exchange"] = (status, answer)
        assert reason in await refusal(credentials, asked)
        assert "hush" not in str(logged)
        assert len(azure.requests) == 2

    async def test_of_the_identity__are_clear(
        self, credentials: Credentials, azure: Cloud, asked: Upstream, logged: list[EventDict]
    ) -> None:
        azure.answers["/identity"] = (400, {"error": "invalid_scope", "x": "hush"})
        assert (await refusal(credentials, asked)).endswith("provider azure: there is no identity")
        assert "hush" not in str(logged)
        assert [each.path.partition("?")[0] for each in azure.requests] == ["/identity"]

    async def test_of_a_registry_that_is_gone__are_clear(self, credentials: Credentials, azure: Cloud) -> None:
        gone = upstream(NAME, "http://127.0.0.1:1", provider="azure")
        assert (await refusal(credentials, gone)).endswith("token exchange cannot be reached")

    async def test_cost_little_time__where_the_identity_hangs(
        self, credentials: Credentials, azure: Cloud, asked: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mirror.source.upstream.credentials.leases._PATIENCE_SECONDS", 0.5)
        azure.silent.set()
        assert (await refusal(credentials, asked)).endswith("provider azure does not answer")
