"""Credential helpers are programs, and programs hang, fail, and say strange things."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import pytest
from structlog.typing import EventDict

from mirror.config import Secret, Upstream
from mirror.source.upstream.credentials import Credential, Credentials
from mirror.source.upstream.daemons import DaemonThreads
from tests.source.credentials.conftest import HOST, Clock, Write, refusal, upstream

ANSWER = """echo '{"ServerURL": "x", "Username": "user", "Secret": "hush"}'"""
FOUND = Credential("user", Secret("hush"))
COUNT = "echo asked >>count"
SLOW = "sleep 60 & echo $! >child; echo $$ >parent; wait"


@pytest.fixture
def asked(tmp_path: Path) -> Upstream:
    """Return an upstream whose credentials the helper `test` has."""
    return configured(tmp_path, "test")


def configured(folder: Path, name: str, host: str = HOST) -> Upstream:
    """Return an upstream whose credentials a helper has."""
    file = folder / f"{name}.json"
    file.write_text(json.dumps({"credsStore": name}))
    return upstream(host, docker_config=str(file))


def count(folder: Path) -> int:
    """Return how often the helper was asked."""
    file = folder / "count"
    return len(file.read_text().splitlines()) if file.exists() else 0


async def ended(file: Path) -> bool:
    """Wait until the process whose id a file holds is no more."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if _is_gone(file):
            return True
        await asyncio.sleep(0.02)
    return False


def _is_gone(file: Path) -> bool:
    try:
        status = Path(f"/proc/{int(file.read_text())}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] == "Z"  # whose parent is gone, and nobody waits for it


async def written(file: Path) -> None:
    """Wait until a helper has written a file."""
    deadline = time.monotonic() + 20
    while not _is_written(file):
        assert time.monotonic() < deadline, f"{file.name} was not written"
        await asyncio.sleep(0.02)


def _is_written(file: Path) -> bool:
    return file.exists() and file.read_text().endswith("\n")


async def given_up(credentials: Credentials, asked: Upstream, begun: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let a helper's time be over once it has written a file; return what is said of it."""
    waiting = asyncio.create_task(refusal(credentials, asked))
    await written(begun)
    monkeypatch.setattr("mirror.source.upstream.credentials.helper._LIMIT_SECONDS", 0.0)
    return await waiting


class TestProtocol:
    async def test_is_asked_to_get__with_the_server_s_bare_name(
        self, credentials: Credentials, asked: Upstream, helper: Write, tmp_path: Path
    ) -> None:
        helper("test", f'echo "$@" >arguments; cat >input; {ANSWER}')
        assert await credentials.of(asked) == FOUND
        assert (tmp_path / "arguments").read_text() == "get\n"
        assert (tmp_path / "input").read_bytes() == HOST.encode()

    async def test_may_leave_its_input_alone(self, credentials: Credentials, asked: Upstream, helper: Write) -> None:
        helper("test", f"exec <&-; {ANSWER}")
        assert await credentials.of(asked) == FOUND

    async def test_gives__an_identity_token(self, credentials: Credentials, asked: Upstream, helper: Write) -> None:
        helper("test", """echo '{"Username": "<token>", "Secret": "t"}'""")
        assert await credentials.of(asked) == Credential("<token>", Secret("t"), is_token=True)

    async def test_gives__what_it_has_though_nobody_hears_of_its_end(
        self, credentials: Credentials, asked: Upstream, helper: Write
    ) -> None:
        helper("test", ANSWER)
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            assert await credentials.of(asked) == FOUND
        finally:
            signal.signal(signal.SIGCHLD, before)

    @pytest.mark.parametrize("said", ["credentials not found in native keychain", "Credentials not found."])
    async def test_gives__nothing_where_it_knows_none(
        self, said: str, credentials: Credentials, asked: Upstream, helper: Write, logged: list[EventDict]
    ) -> None:
        helper("test", f"echo '{said}'; exit 1")
        assert await credentials.of(asked) is None
        assert logged == []

    async def test_may_say_anything__on_standard_error(
        self, credentials: Credentials, asked: Upstream, helper: Write
    ) -> None:
        helper("test", f"head -c 1000000 /dev/zero >&2; echo noise >&2; {ANSWER}; echo more >&2")
        assert await credentials.of(asked) == FOUND

    async def test_hears_none_of_the_mirror_s_own_secrets(
        self,
        credentials: Credentials,
        asked: Upstream,
        helper: Write,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("LAYOVER_UPSTREAMS", "hush")
        monkeypatch.setenv("OTHER", "heard")
        helper("test", f"env >heard; {ANSWER}")
        assert await credentials.of(asked) == FOUND
        heard = (tmp_path / "heard").read_text()
        assert "OTHER=heard" in heard
        assert "LAYOVER_" not in heard


class TestFailures:
    @pytest.mark.parametrize(
        ("script", "reason"),
        [
            ("echo hush", "answered with something other"),
            ("exit 0", "answered with something other"),
            ("""echo '{"Username": "user"}'""", "answered with something other"),
            ("""echo '{"Username": 5, "Secret": "hush"}'""", "answered with something other"),
            ("""printf '{"Username": "u", "Secret": "hush\\377"}'""", "answered with something other"),
            ("""echo '{"Username": "user", "Secret": ""}'""", "is empty"),
            ("""printf '%s' '{"Username": "user", "Secret": "hush\\nhush"}'""", "holds a line break"),
            ("""echo '{"Username": "a:b", "Secret": "hush"}'""", "a colon"),
            ("exec head -c 10000000 /dev/zero", "answered with more than"),
            ("exec yes hush", "answered with more than"),
            (f"{ANSWER}; exit 3", "ended with status 3"),
            ("echo hush; exit 1", "ended with status 1"),
            ("kill -9 $$", "was ended by signal 9"),
        ],
    )
    async def test_are_one_line__without_what_it_said(
        self, script: str, reason: str, credentials: Credentials, asked: Upstream, helper: Write
    ) -> None:
        helper("test", script)
        text = await refusal(credentials, asked)
        assert "docker-credential-test: " in text
        assert reason in text
        assert "hush" not in text

    async def test_are_logged_once__with_its_message(
        self, credentials: Credentials, asked: Upstream, helper: Write, logged: list[EventDict], clock: Clock
    ) -> None:
        helper("test", f"printf 'the key ring is\\n\\033[1mlocked {'x' * 500}'; exit 1")
        for _ in range(3):
            await refusal(credentials, asked)
            clock.now += 20
        (line,) = logged
        assert (line["log_level"], line["upstream"]) == ("warning", HOST)
        assert line["error"] == "docker-credential-test: ended with status 1"
        assert line["detail"].startswith("the key ring is [1mlocked xxx")
        assert len(line["detail"]) == 200
        helper("test", ANSWER)
        clock.now += 20
        await credentials.of(asked)
        assert (len(logged), logged[1]["log_level"]) == (2, "info")

    @pytest.mark.parametrize("script", [f"{ANSWER}; exit 1", 'echo \'oops {"Secret": "hush"}\'; exit 1'])
    async def test_are_logged__without_what_looks_like_an_answer(
        self, script: str, credentials: Credentials, asked: Upstream, helper: Write, logged: list[EventDict]
    ) -> None:
        helper("test", script)
        await refusal(credentials, asked)
        assert len(logged) == 1
        assert "hush" not in str(logged)

    async def test_are_clear__for_a_program_that_cannot_be_run(
        self, credentials: Credentials, helper: Write, tmp_path: Path
    ) -> None:
        missing = await refusal(credentials, configured(tmp_path, "missing"))
        assert "docker-credential-missing: is not there: no such program on PATH" in missing
        helper("locked", ANSWER).chmod(0o644)
        assert "cannot be run: Permission denied" in await refusal(credentials, configured(tmp_path, "locked"))
        helper("strange", "").write_bytes(b"\0\1\2")
        assert "cannot be run: Exec format" in await refusal(credentials, configured(tmp_path, "strange"))

    async def test_are_not_repeated__until_a_while_has_passed(
        self, credentials: Credentials, asked: Upstream, helper: Write, clock: Clock, tmp_path: Path
    ) -> None:
        helper("test", f"{COUNT}; exit 1")
        for _ in range(5):
            await refusal(credentials, asked)
            clock.now += 2
        assert count(tmp_path) == 1
        helper("test", f"{COUNT}; {ANSWER}")
        clock.now += 15
        assert await credentials.of(asked) == FOUND


class TestHanging:
    async def test_is_ended__with_all_that_it_started(
        self,
        credentials: Credentials,
        asked: Upstream,
        helper: Write,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        helper("test", SLOW)
        said = await given_up(credentials, asked, tmp_path / "parent", monkeypatch)
        assert "docker-credential-test: did not end within" in said
        assert await ended(tmp_path / "parent")
        assert await ended(tmp_path / "child")

    @pytest.mark.parametrize(
        "script",
        [
            "exec >&-; sleep 60",
            "trap '' TERM INT; while :; do sleep 1; done",
            "while :; do echo more; sleep 0.01; done",
        ],
    )
    async def test_is_ended__whatever_it_does(
        self,
        script: str,
        credentials: Credentials,
        asked: Upstream,
        helper: Write,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        helper("test", f"sleep 60 & echo $$ >parent; {script}")
        assert "did not end within" in await given_up(credentials, asked, tmp_path / "parent", monkeypatch)
        assert await ended(tmp_path / "parent")

    async def test_delays_nobody__once_it_has_answered_though_its_output_stays_open(
        self, credentials: Credentials, asked: Upstream, helper: Write, tmp_path: Path
    ) -> None:
        helper("test", f"sleep 60 & echo $! >child; {ANSWER}")
        assert await credentials.of(asked) == FOUND
        assert await ended(tmp_path / "child")

    async def test_delays_nobody__once_it_has_answered_though_what_it_started_left_its_group(
        self, credentials: Credentials, asked: Upstream, helper: Write, tmp_path: Path
    ) -> None:
        helper(
            "test",
            f"setsid sh -c 'echo $$ >child; exec sleep 60' & while [ ! -s child ]; do sleep 0.02; done; {ANSWER}",
        )
        assert await credentials.of(asked) == FOUND
        await written(tmp_path / "child")
        os.kill(int((tmp_path / "child").read_text()), 9)

    async def test_delays_no_other_upstream(self, credentials: Credentials, helper: Write, tmp_path: Path) -> None:
        helper("slow", SLOW)
        helper("test", ANSWER)
        hanging = [
            asyncio.create_task(credentials.of(configured(tmp_path, "slow", f"{number}.example")))
            for number in range(20)
        ]
        await written(tmp_path / "parent")
        assert await credentials.of(configured(tmp_path, "test")) == FOUND
        assert not any(each.done() for each in hanging)
        for each in hanging:
            each.cancel()
        await asyncio.wait(hanging)

    async def test_is_waited_for__only_so_long(
        self, credentials: Credentials, asked: Upstream, helper: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mirror.source.upstream.credentials.leases._PATIENCE_SECONDS", 0.2)
        helper("test", "while [ ! -e go ]; do sleep 0.05; done; " + ANSWER)
        assert "docker-credential-test does not answer" in await refusal(credentials, asked)
        assert "docker-credential-test does not answer" in await refusal(credentials, asked)
        (Path(asked.docker_config).parent / "go").touch()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                assert await credentials.of(asked) == FOUND
                break
            except Exception:  # noqa: BLE001 - not yet
                await asyncio.sleep(0.02)
        else:
            pytest.fail("its late answer was not used")

    async def test_is_ended__with_the_mirror(
        self, asked: Upstream, helper: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mirror.source.upstream.credentials.helper._LIMIT_SECONDS", 3600.0)
        credentials = Credentials(DaemonThreads())
        helper("test", SLOW)
        waiting = asyncio.create_task(credentials.of(asked))
        await written(tmp_path / "parent")
        await credentials.close()
        assert await ended(tmp_path / "parent")
        assert await ended(tmp_path / "child")
        await asyncio.wait({waiting})
        assert waiting.exception() is not None


class TestCache:
    async def test_shares__one_run_among_all_who_wait(
        self, credentials: Credentials, asked: Upstream, helper: Write, tmp_path: Path
    ) -> None:
        helper("test", f"{COUNT}; {ANSWER}")
        waiting = [asyncio.create_task(credentials.of(asked)) for _ in range(20)]
        await asyncio.sleep(0)
        waiting.pop().cancel()
        assert await asyncio.gather(*waiting) == [FOUND] * 19
        assert await credentials.of(asked) == FOUND
        assert count(tmp_path) == 1

    async def test_asks__for_each_server(
        self, credentials: Credentials, asked: Upstream, helper: Write, tmp_path: Path
    ) -> None:
        helper("test", """echo asked >>count; printf '{"Username": "u", "Secret": "%s"}' "$(cat)" """)
        for host in ("a.example", "b.example", "a.example"):
            found = await credentials.of(configured(tmp_path, "test", host))
            assert found is not None
            assert found.secret == host
        assert count(tmp_path) == 2

    async def test_asks_again__after_a_while(
        self, credentials: Credentials, asked: Upstream, helper: Write, clock: Clock, tmp_path: Path
    ) -> None:
        helper("test", f"{COUNT}; {ANSWER}")
        for _ in range(4):
            assert await credentials.of(asked) == FOUND
            clock.now += 300.5
        assert count(tmp_path) == 2

    async def test_asks_again__soon_where_there_were_none(
        self, credentials: Credentials, asked: Upstream, helper: Write, clock: Clock, tmp_path: Path
    ) -> None:
        helper("test", f"{COUNT}; echo credentials not found in native keychain; exit 1")
        for _ in range(3):
            assert await credentials.of(asked) is None
        assert count(tmp_path) == 1
        helper("test", ANSWER)
        clock.now += 61
        assert await credentials.of(asked) == FOUND

    async def test_asks_again__once_a_minute_where_the_upstream_said_no(
        self, credentials: Credentials, asked: Upstream, helper: Write, clock: Clock, tmp_path: Path
    ) -> None:
        helper("test", f"{COUNT}; {ANSWER}")
        for _ in range(18):
            found = await credentials.of(asked)
            assert found is not None
            credentials.refused(asked, found)
            clock.now += 10
        assert count(tmp_path) == 3
        credentials.refused(asked, Credential("user", Secret("older")))
        assert await credentials.of(asked) == FOUND
