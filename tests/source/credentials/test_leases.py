"""What is had for a while: when it is asked for, who waits, and who does not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest
from structlog.typing import EventDict

from mirror.source.upstream.credentials.credential import CredentialError
from mirror.source.upstream.credentials.leases import Ask, Lease, Leases
from mirror.source.upstream.daemons import DaemonThreads
from tests.source.credentials.conftest import Clock

LEASES = "mirror.source.upstream.credentials.leases"


class Source:
    """Gives out numbers, or fails, or hangs until it is let go."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 1000.0
        self.error: BaseException | None = None
        self.gate = threading.Event()
        self.gate.set()

    def call(self) -> Lease[int]:
        """Be asked."""
        self.calls += 1
        number = self.calls
        self.gate.wait(60)
        if self.error is not None:
            raise self.error
        return Lease(number, self.seconds)

    def ask(self, key: str = "key", label: str = "label") -> Ask[int]:
        """Return how to ask it."""
        return Ask(label, key, "the source", self.call)


@pytest.fixture
async def source() -> AsyncIterator[Source]:
    made = Source()
    yield made
    made.gate.set()


@pytest.fixture
async def leases() -> AsyncIterator[Leases[int]]:
    kept: Leases[int] = Leases(DaemonThreads(), 15.0)
    yield kept
    await kept.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


class TestRenewal:
    @pytest.mark.parametrize(("seconds", "early"), [(1000, 100), (43_200, 300), (60, 6)])
    async def test_begins__shortly_before_the_end(
        self, seconds: float, early: float, leases: Leases[int], source: Source, clock: Clock
    ) -> None:
        source.seconds = seconds
        assert await leases.get(source.ask()) == 1
        clock.now += seconds - early - 1
        assert await leases.get(source.ask()) == 1
        await asyncio.sleep(0)
        assert source.calls == 1
        clock.now += 2
        assert await leases.get(source.ask()) == 1
        await until(lambda: source.calls == 2)

    async def test_keeps_nobody_waiting(self, leases: Leases[int], source: Source, clock: Clock) -> None:
        await leases.get(source.ask())
        clock.now += 950
        source.gate.clear()
        for _ in range(3):
            assert await leases.get(source.ask()) == 1
        source.gate.set()
        deadline = time.monotonic() + 20
        while await leases.get(source.ask()) == 1:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert source.calls == 2

    async def test_that_fails__leaves_what_is_still_good(
        self, leases: Leases[int], source: Source, clock: Clock, logged: list[EventDict]
    ) -> None:
        await leases.get(source.ask())
        clock.now += 950
        source.error = CredentialError("closed")
        for _ in range(3):
            assert await leases.get(source.ask()) == 1
            await until(lambda: len(logged) == 1)
        assert source.calls == 2
        clock.now += 51
        with pytest.raises(CredentialError, match="closed"):
            await leases.get(source.ask())


class TestFailure:
    async def test_is_remembered__for_a_while(self, leases: Leases[int], source: Source, clock: Clock) -> None:
        source.error = CredentialError("closed")
        for _ in range(3):
            with pytest.raises(CredentialError, match="closed"):
                await leases.get(source.ask())
            clock.now += 4
        assert source.calls == 1
        source.error = None
        clock.now += 4
        assert await leases.get(source.ask()) == 2

    @pytest.mark.parametrize("error", [KeyError("hush"), SystemExit("hush"), KeyboardInterrupt("hush")])
    async def test_of_any_kind__is_named_and_not_quoted(
        self, error: BaseException, leases: Leases[int], source: Source, logged: list[EventDict]
    ) -> None:
        source.error = error
        with pytest.raises(CredentialError, match="the source failed"):
            await leases.get(source.ask())
        assert logged[0]["detail"] == type(error).__name__
        assert "hush" not in str(logged)

    async def test_to_start_a_thread__leaves_no_turn_taken(
        self, leases: Leases[int], source: Source, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", fail)
            for number in range(8):
                with pytest.raises(CredentialError, match="the source cannot be asked"):
                    await leases.get(source.ask(str(number)))
        assert await leases.get(source.ask()) == 1


class TestHanging:
    async def test_costs_the_first_some_time__and_later_ones_none(
        self, leases: Leases[int], source: Source, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(f"{LEASES}._PATIENCE_SECONDS", 0.1)
        source.seconds = 10_000
        source.gate.clear()
        with pytest.raises(CredentialError, match="the source does not answer"):
            await leases.get(source.ask())
        monkeypatch.setattr(f"{LEASES}._PATIENCE_SECONDS", 3600.0)
        clock.now += 3601
        for _ in range(3):
            with pytest.raises(CredentialError, match="the source does not answer"):
                await leases.get(source.ask())
        assert source.calls == 1
        source.gate.set()
        await until(lambda: leases._entries["key"].flight is None)
        assert await leases.get(source.ask()) == 1

    async def test_after_a_failure__costs_little(
        self, leases: Leases[int], source: Source, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(f"{LEASES}._PATIENCE_SECONDS", 3600.0)
        monkeypatch.setattr(f"{LEASES}._PATIENCE_AFTER_FAILURE_SECONDS", 0.1)
        source.error = CredentialError("closed")
        with pytest.raises(CredentialError):
            await leases.get(source.ask())
        source.gate.clear()
        clock.now += 20
        with pytest.raises(CredentialError, match="closed"):
            await leases.get(source.ask())
        monkeypatch.setattr(f"{LEASES}._PATIENCE_AFTER_FAILURE_SECONDS", 3600.0)
        source.error = None
        source.gate.set()
        assert await leases.get(source.ask()) == 2

    async def test_for_ever__makes_way_for_another_call(
        self, leases: Leases[int], source: Source, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(f"{LEASES}._GIVE_UP_SECONDS", 0.1)
        source.gate.clear()
        with pytest.raises(CredentialError, match="the source does not answer"):
            await leases.get(source.ask())
        clock.now += 20
        with pytest.raises(CredentialError, match="the source does not answer"):
            await leases.get(source.ask())
        await until(lambda: source.calls == 2)
        monkeypatch.setattr(f"{LEASES}._GIVE_UP_SECONDS", 60.0)
        source.gate.set()
        clock.now += 20
        assert await leases.get(source.ask()) == 3

    async def test_takes_few_threads__and_none_of_another_upstream(self, leases: Leases[int], source: Source) -> None:
        source.gate.clear()
        waiting = [asyncio.create_task(leases.get(source.ask(str(number)))) for number in range(50)]
        await until(lambda: source.calls == 4)
        other = Source()
        assert await leases.get(other.ask("other", "other")) == 1
        assert source.calls == 4
        source.gate.set()
        await asyncio.gather(*waiting)
        assert source.calls == 50

    async def test_leaves__no_more_known_than_there_is_room_for(
        self, leases: Leases[int], source: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(f"{LEASES}._MOST_LEASES", 3)
        for number in range(5):
            await leases.get(source.ask(str(number)))
        assert await leases.get(source.ask("4")) == 5
        assert await leases.get(source.ask("0")) == 6
        source.gate.clear()
        waiting = [asyncio.create_task(leases.get(source.ask(f"slow {number}"))) for number in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(CredentialError, match="too many"):
            await leases.get(source.ask("one more"))
        source.gate.set()
        await asyncio.gather(*waiting)
