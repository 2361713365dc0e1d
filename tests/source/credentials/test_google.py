"""Google's registries, by the real google-auth against loopback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from structlog.typing import EventDict

from mirror.config import Secret
from mirror.source.upstream.credentials import Credential, Credentials
from tests.source.credentials.cloud import Cloud
from tests.source.credentials.conftest import Clock, put, refusal, upstream

ASKED = upstream("europe-docker.pkg.dev", provider="google")
OTHER = upstream("gcr.io", provider="google")
EMAIL = "mirror@project.iam.gserviceaccount.com"
ROBOT = f"google:{EMAIL}"
METADATA = "/computeMetadata/v1/instance/service-accounts/default"


@pytest.fixture(scope="module")
def key() -> str:
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.private_bytes(*form).decode()


@pytest.fixture
def google(cloud: Cloud, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """Return Google, with a service account's key in a file of its own."""
    account = {
        "type": "service_account",
        "project_id": "project",
        "private_key": key,
        "client_email": EMAIL,
        "token_uri": f"{cloud.url}/token",
    }
    (tmp_path / "key.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    cloud.answers["/token"] = (200, {"access_token": "one", "expires_in": 3600, "token_type": "Bearer"})
    return cloud


@pytest.fixture
def instance(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """Return the metadata service of an instance in Google's cloud."""
    monkeypatch.setenv("GCE_METADATA_IP", cloud.address)
    monkeypatch.setattr("google.auth.compute_engine._metadata._GCE_METADATA_HOST", cloud.address)
    cloud.answers["/"] = (200, {})
    cloud.answers["/computeMetadata/v1/project/project-id"] = (200, "project")
    cloud.answers[METADATA] = (200, {"email": "default", "scopes": []})
    cloud.answers[f"{METADATA}/token"] = (200, {"access_token": "lent", "expires_in": 3600, "token_type": "Bearer"})
    return cloud


async def test_is_the_access_token__of_a_service_account(credentials: Credentials, google: Cloud) -> None:
    assert await credentials.of(ASKED) == Credential("oauth2accesstoken", Secret("one"), account=ROBOT)
    (request,) = google.requests
    assert request.form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"


async def test_is_the_access_token__that_an_instance_is_lent(credentials: Credentials, instance: Cloud) -> None:
    assert await credentials.of(ASKED) == Credential("oauth2accesstoken", Secret("lent"))


async def test_is_the_access_token__of_whom_an_instance_says_it_is(credentials: Credentials, instance: Cloud) -> None:
    instance.answers[METADATA] = (200, {"email": EMAIL, "scopes": []})
    assert await credentials.of(ASKED) == Credential("oauth2accesstoken", Secret("lent"), account=ROBOT)


async def test_is_the_same__for_all_of_google_s_registries(credentials: Credentials, google: Cloud) -> None:
    assert await credentials.of(ASKED) == await credentials.of(OTHER)
    assert len(google.requests) == 1


async def test_is_renewed__at_its_end(credentials: Credentials, google: Cloud, clock: Clock) -> None:
    await credentials.of(ASKED)
    google.answers["/token"] = (200, {"access_token": "two", "expires_in": 3600})
    clock.now += 3000
    assert await credentials.of(ASKED) == Credential("oauth2accesstoken", Secret("one"), account=ROBOT)
    clock.now += 700
    assert await credentials.of(ASKED) == Credential("oauth2accesstoken", Secret("two"), account=ROBOT)


class TestFailures:
    async def test_are_clear__where_google_says_no(
        self, credentials: Credentials, google: Cloud, logged: list[EventDict]
    ) -> None:
        google.answers["/token"] = (400, {"error": "invalid_grant", "error_description": "Invalid JWT", "x": "hush"})
        assert (await refusal(credentials, ASKED)).endswith("provider google: Google gave no token")
        assert logged[0]["detail"] == "RefreshError: invalid_grant: Invalid JWT"

    async def test_are_clear__where_the_answer_is_no_token(
        self, credentials: Credentials, google: Cloud, logged: list[EventDict]
    ) -> None:
        google.answers["/token"] = (200, {"id_token": "hush"})
        await refusal(credentials, ASKED)
        assert logged[0]["detail"] == "RefreshError: No access token in response."

    async def test_are_clear__where_the_key_is_none(
        self, credentials: Credentials, google: Cloud, tmp_path: Path, logged: list[EventDict]
    ) -> None:
        put(tmp_path / "key.json", '{"private_key": "hush')
        await refusal(credentials, ASKED)
        assert "DefaultCredentialsError" in logged[0]["detail"]
        assert "hush" not in str(logged)

    async def test_cost_little_time__where_google_hangs(
        self, credentials: Credentials, google: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mirror.source.upstream.credentials.leases._PATIENCE_SECONDS", 0.5)
        google.silent.set()
        assert (await refusal(credentials, ASKED)).endswith("provider google does not answer")
