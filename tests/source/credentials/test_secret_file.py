"""Names and passwords that the configuration holds, or a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mirror.config import Secret
from mirror.source.upstream.credentials import Credential, Credentials
from tests.source.credentials.conftest import Clock, put, refusal, upstream


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "password"


async def password(credentials: Credentials, file: Path | str, username: str = "user") -> str:
    """Return the password that is read from a file."""
    found = await credentials.of(upstream(username=username, password_file=str(file)))
    assert found is not None
    assert found.username == username
    return found.secret


async def test_is_nobody__where_nothing_is_configured(credentials: Credentials) -> None:
    assert await credentials.of(upstream()) is None


async def test_is_who_the_configuration_names(credentials: Credentials) -> None:
    asked = upstream(username="user", password=Secret("a: b"))
    found = await credentials.of(asked)
    assert found == Credential("user", Secret("a: b"))
    credentials.refused(asked, found)
    assert await credentials.of(asked) == found


async def test_is_an_identity_token__for_docker_s_user_of_that_name(credentials: Credentials) -> None:
    asked = upstream(username="<token>", password=Secret("identity"))
    assert await credentials.of(asked) == Credential("<token>", Secret("identity"), is_token=True)


class TestFile:
    @pytest.mark.parametrize(
        ("content", "secret"), [("s", "s"), ("s\n", "s"), ("s\r\n", "s"), (" ä: \n", " ä: "), ("<t>", "<t>")]
    )
    async def test_is_read__without_its_last_line_break(
        self, content: str, secret: str, credentials: Credentials, file: Path
    ) -> None:
        put(file, content)
        assert await password(credentials, file) == secret

    async def test_is_read_again__a_second_later_when_needed(
        self, credentials: Credentials, file: Path, clock: Clock
    ) -> None:
        put(file, "old")
        assert await password(credentials, file) == "old"
        put(file, "new")
        clock.now += 0.5
        assert await password(credentials, file) == "old"
        clock.now += 0.6
        assert await password(credentials, file) == "new"

    async def test_is_read_again__once_it_is_there(self, credentials: Credentials, file: Path, clock: Clock) -> None:
        asked = upstream(username="user", password_file=str(file))
        assert "cannot be read" in await refusal(credentials, asked)
        put(file, "secret")
        clock.now += 1.1
        assert await password(credentials, file) == "secret"

    async def test_may_be_in_the_home_folder(
        self, credentials: Credentials, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(file.parent))
        put(file, "secret")
        assert await password(credentials, f"~/{file.name}") == "secret"

    @pytest.mark.parametrize("username", ["_json_key", "_json_key_base64"])
    async def test_may_have_lines__where_it_is_google_s_key(
        self, username: str, credentials: Credentials, file: Path
    ) -> None:
        put(file, '{\n\t"type": "service_account"\r\n}\n')
        assert await password(credentials, file, username) == '{\n\t"type": "service_account"\r\n}'

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "is empty"),
            (b"\n", "is empty"),
            (b"hush\nhush\n", "holds a line break"),
            (b"hush\n\n", "holds a line break"),
            (b"hush\0", "cannot be printed"),
            (b"\xef\xbb\xbfhush", "cannot be printed"),
            (b"hush\xff", "is not text in UTF-8"),
            (b"h" * 2_000_000, "is longer than"),
        ],
    )
    async def test_is_named__where_its_content_is_no_password(
        self, content: bytes, reason: str, credentials: Credentials, file: Path
    ) -> None:
        put(file, content)
        text = await refusal(credentials, upstream(username="user", password_file=str(file)))
        assert f"password_file {file}: " in text
        assert reason in text
        assert "hush" not in text

    async def test_is_named__where_it_is_none(self, credentials: Credentials, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        reasons = {"missing": "No such file", "": "is not a file", "pipe": "is not a file", "\0": "null byte"}
        for name, reason in reasons.items():
            text = await refusal(credentials, upstream(username="user", password_file=f"{tmp_path}/{name}"))
            assert f"password_file {tmp_path}/" in text
            assert reason in text
