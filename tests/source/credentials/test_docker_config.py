"""What Docker's configuration says, matched as Docker matches it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from mirror.config import Secret
from mirror.source.upstream.credentials import Credential, Credentials
from mirror.source.upstream.credentials.credential import CredentialError
from mirror.source.upstream.credentials.docker_config import DockerConfig, HelperCall
from tests.source.credentials.conftest import HOST, Clock, Write, put, refusal, upstream

HUB = "https://index.docker.io/v1/"
LOGIN = Credential("user", Secret("pass:word"))


def auth(text: str = "user:pass:word") -> dict[str, str]:
    """Return an entry of `auths`."""
    return {"auth": base64.b64encode(text.encode()).decode()}


def places(content: Any, name: str = HOST, url: str = "", *, file: Path) -> tuple[HelperCall | Credential, ...]:
    """Return where a configuration sends for the credentials of an upstream."""
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return DockerConfig.read(str(file)).places(upstream(name, url))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


class TestAuths:
    @pytest.mark.parametrize(
        "key",
        [HOST, f"https://{HOST}", f"http://{HOST}/v1/", f"https://{HOST}/v2/", f"{HOST}/team", "Registry.Example"],
    )
    def test_match__by_host_with_scheme_and_path_or_without(self, key: str, file: Path) -> None:
        assert places({"auths": {key: auth()}}, file=file) == (LOGIN,)

    @pytest.mark.parametrize(
        "key", ["example", f"{HOST}:443", f"x.{HOST}", f"{HOST}.evil.example", "https://", "", f"evil.example/{HOST}"]
    )
    def test_match__no_other_host(self, key: str, file: Path) -> None:
        assert places({"auths": {key: auth()}}, file=file) == ()

    @pytest.mark.parametrize("key", [HUB, "index.docker.io", "docker.io", "https://registry-1.docker.io/v2/"])
    def test_match__docker_hub_by_each_of_its_names(self, key: str, file: Path) -> None:
        content = {"auths": {HOST: auth("other:x"), key: auth()}}
        assert places(content, "docker.io", "https://registry-1.docker.io", file=file) == (LOGIN,)

    def test_prefer__what_docker_writes(self, file: Path) -> None:
        hub = {"auths": {"docker.io": auth("other:x"), HUB: auth(), "index.docker.io": auth("third:x")}}
        assert places(hub, "docker.io", file=file) == (LOGIN,)
        both = {"auths": {f"{HOST}/team": auth("other:x"), HOST: auth(), f"https://{HOST}": auth("third:x")}}
        assert places(both, file=file) == (LOGIN,)

    def test_match__the_host_that_is_dialled(self, file: Path) -> None:
        content = {"auths": {"10.0.0.1:5000": auth()}}
        assert places(content, url="https://10.0.0.1:5000", file=file) == (LOGIN,)
        content["auths"][HOST] = auth("named:x")
        assert places(content, url="https://10.0.0.1:5000", file=file) == (Credential("named", Secret("x")),)

    @pytest.mark.parametrize(
        ("entry", "found"),
        [
            ({"username": "user", "password": "pass:word"}, LOGIN),
            ({**auth(), "username": "other", "password": "x"}, LOGIN),
            ({**auth("user:pass:word\0\0")}, LOGIN),
            ({**auth("ü:ä")}, Credential("ü", Secret("ä"))),
            ({**auth(), "email": "a@b.example", "registrytoken": ""}, LOGIN),
            ({"identitytoken": "t"}, Credential("", Secret("t"), is_token=True)),
            ({**auth("user:"), "identitytoken": "t"}, Credential("user", Secret("t"), is_token=True)),
            ({**auth("<token>:t")}, Credential("<token>", Secret("t"), is_token=True)),
            ({}, None),
            (None, None),
            ({"auth": "", "username": None}, None),
        ],
    )
    def test_hold__a_login_in_each_of_its_shapes(self, entry: Any, found: Credential | None, file: Path) -> None:
        assert places({"auths": {HOST: entry}}, file=file) == (() if found is None else (found,))

    @pytest.mark.parametrize(
        "entry",
        [{"auth": "hush!"}, {"auth": "aHVzaA"}, auth("hush"), auth("hush:"), auth("hush:a\nb"), auth("a\nhush:b")],
    )
    def test_are_an_error__where_the_login_is_none(self, entry: dict[str, str], file: Path) -> None:
        with pytest.raises(CredentialError) as refused:
            places({"auths": {HOST: entry}}, file=file)
        assert str(refused.value).startswith(f"docker_config {file}: auths")
        assert "hush" not in str(refused.value)

    def test_are_an_error__of_their_own_host_alone(self, file: Path) -> None:
        assert places({"auths": {"other.example": {"auth": "!"}, HOST: auth()}}, file=file) == (LOGIN,)


class TestHelpers:
    def test_are_asked__before_what_is_written(self, file: Path) -> None:
        content = {"auths": {HOST: auth()}, "credHelpers": {HOST: "one"}, "credsStore": "all"}
        assert places(content, file=file) == (HelperCall("one", HOST), LOGIN)

    def test_are_asked__for_their_own_hosts(self, file: Path) -> None:
        content = {"credHelpers": {HOST: "one"}, "credsStore": "all"}
        assert places(content, "other.example", file=file) == (HelperCall("all", "other.example"),)
        del content["credsStore"]
        assert places(content, "other.example", file=file) == ()

    @pytest.mark.parametrize("key", [HUB, "index.docker.io", "docker.io"])
    def test_are_asked__for_docker_hub_by_docker_s_name(self, key: str, file: Path) -> None:
        content = {"credHelpers": {key: "one"}}
        assert places(content, "docker.io", "http://127.0.0.1:1", file=file) == (HelperCall("one", HUB),)
        assert places({"credsStore": "all"}, "docker.io", file=file) == (HelperCall("all", HUB),)

    def test_are_asked__for_the_host_that_is_dialled_too(self, file: Path) -> None:
        found = places({"credsStore": "all"}, url="https://10.0.0.1:5000/mirror", file=file)
        assert found == (HelperCall("all", HOST), HelperCall("all", "10.0.0.1:5000"))

    @pytest.mark.parametrize("name", ["../x", "a/b", "/bin/sh", "a b", "-x", ".", "a\n", "x" * 101])
    def test_are_no_paths(self, name: str, file: Path) -> None:
        for content in ({"credsStore": name}, {"credHelpers": {HOST: name}}):
            with pytest.raises(CredentialError, match="is no name of a credential helper"):
                places(content, file=file)


class TestFile:
    @pytest.mark.parametrize("content", ["{}", '{"auths": null}', '{"credsStore": "", "psFormat": 5}'])
    def test_may_say_nothing(self, content: str, file: Path) -> None:
        assert places(content, file=file) == ()

    @pytest.mark.parametrize(
        "content", ["", "hush", "[]", '{"auths": []}', '{"auths": {"hush": 5}}', '{"credsStore": 5}', "[" * 5000]
    )
    async def test_is_named__where_it_is_no_configuration(
        self, content: str, credentials: Credentials, file: Path
    ) -> None:
        put(file, content)
        text = await refusal(credentials, upstream(docker_config=str(file)))
        assert f"docker_config {file}: is no Docker configuration" in text
        assert "hush" not in text

    async def test_is_named__where_it_is_missing(self, credentials: Credentials, file: Path) -> None:
        text = await refusal(credentials, upstream(docker_config=str(file)))
        assert text.endswith(f"docker_config {file}: cannot be read: No such file or directory")

    async def test_is_found_in_the_home_folder__and_read_again(
        self, credentials: Credentials, file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(file.parent))
        asked = upstream(docker_config="~/config.json")
        put(file, json.dumps({"auths": {HOST: auth()}}))
        assert await credentials.of(asked) == LOGIN
        put(file, json.dumps({"auths": {HOST: auth("new:x")}}))
        clock.now += 1.1
        assert await credentials.of(asked) == Credential("new", Secret("x"))
        put(file, "{}")
        clock.now += 1.1
        assert await credentials.of(asked) is None

    async def test_stands_in__where_the_helper_has_none(
        self, credentials: Credentials, file: Path, helper: Write
    ) -> None:
        helper("none", "echo 'credentials not found in native keychain'; exit 1")
        put(file, json.dumps({"auths": {HOST: auth()}, "credsStore": "none"}))
        assert await credentials.of(upstream(docker_config=str(file))) == LOGIN
