"""The breaker: what opens it, who passes while it is open, and what closes it."""

from __future__ import annotations

import asyncio

import pytest

from mirror import config
from mirror.observe.metrics import HubMetrics, new_registry
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source.upstream import failures
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.breaker import Breaker, Breakers
from tests.source.conftest import HOST

UPSTREAM = config.Upstream(HOST, HOST, f"https://{HOST}")
OTHER_HOST = "cdn.example:443"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, to be changed."""
    now = [1000.0]
    monkeypatch.setattr("mirror.source.upstream.breaker.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def told() -> list[RegistryError | None]:
    return []


@pytest.fixture
def breaker(clock: list[float], told: list[RegistryError | None]) -> Breaker:
    return Breaker(told.append, is_patient=True)


def ask(
    repository: str = "app", kind: str = "manifest", *, is_probe: bool = False, is_quick: bool = True, base: str = ""
) -> Ask:
    found = Ask(UPSTREAM, Repository(HOST, repository), kind, "GET", "x", ErrorCode.MANIFEST_UNKNOWN)
    return found._replace(is_probe=is_probe, is_quick=is_quick, base=base)


def unreachable(failure: Failure, host: str = "") -> failures.UpstreamError:
    return failures.unreachable(UPSTREAM, host or ask().url.authority, failure)


def refused(status: int, host: str = "") -> failures.UpstreamError:
    return failures.refusal(UPSTREAM, status, {}, b"", ErrorCode.MANIFEST_UNKNOWN, host or ask().url.authority)


async def made(breaker: Breaker, asked: Ask, error: BaseException | None) -> None:
    """Make a request that ends so."""
    breaker.leave(asked, error, was_probe=await breaker.enter(asked))


class TestOpening:
    @pytest.mark.parametrize(
        ("failure", "times"),
        [
            (Failure.REFUSED, 1),
            (Failure.DNS, 1),
            (Failure.TLS, 1),
            (Failure.TIMEOUT, 2),
            (Failure.RESET, 5),
        ],
    )
    async def test_takes__failures_in_a_row(
        self, failure: Failure, times: int, breaker: Breaker, told: list[RegistryError | None]
    ) -> None:
        for _ in range(times):
            assert not breaker.is_open
            await made(breaker, ask(), unreachable(failure))
        assert breaker.is_open
        assert [error.failure for error in told if error is not None] == [failure]

    async def test_takes__five_errors_of_the_server(self, breaker: Breaker) -> None:
        for _ in range(4):
            await made(breaker, ask(), refused(503))
        await made(breaker, ask(), None)
        for _ in range(4):
            await made(breaker, ask(), refused(500))
            assert not breaker.is_open
        await made(breaker, ask(), refused(502))
        assert breaker.is_open

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 416, 429])
    async def test_is_not_done__by_an_answer(self, status: int, breaker: Breaker) -> None:
        for _ in range(4):
            await made(breaker, ask(), refused(503))
        for _ in range(20):
            await made(breaker, ask(), refused(status))
        await made(breaker, ask(), refused(503))
        assert not breaker.is_open

    @pytest.mark.parametrize("failure", list(failures._PHRASES))
    async def test_is_not_done__by_another_host(self, failure: Failure, breaker: Breaker) -> None:
        for _ in range(10):
            await made(breaker, ask(), unreachable(failure, OTHER_HOST))
            await made(breaker, ask(), refused(503, OTHER_HOST))
        assert not breaker.is_open

    async def test_is_not_done__by_slow_or_broken_blobs(self, breaker: Breaker) -> None:
        for _ in range(10):
            await made(breaker, ask(kind="blob"), unreachable(Failure.TIMEOUT))
            await made(breaker, ask(kind="blob"), refused(503))
        assert not breaker.is_open
        await made(breaker, ask(kind="blob"), unreachable(Failure.REFUSED))
        assert breaker.is_open

    async def test_is_not_done__by_what_was_never_asked(self, breaker: Breaker) -> None:
        for error in (failures.crowded(UPSTREAM), failures.late(UPSTREAM, ask().url.authority), KeyboardInterrupt()):
            for _ in range(10):
                await made(breaker, ask(), error)
        assert not breaker.is_open

    async def test_takes_less__of_an_endpoint_beside_which_there_are_others(self, clock: list[float]) -> None:
        breaker = Breaker(lambda _: None, is_patient=False)
        endpoint = ask(kind="blob", base="https://near.example")
        await made(breaker, endpoint, unreachable(Failure.TIMEOUT, endpoint.url.authority))
        assert breaker.is_open


class TestOpen:
    async def test_repeats__how_it_failed(self, breaker: Breaker) -> None:
        await made(breaker, ask(), unreachable(Failure.DNS))
        for asked in (ask(), ask("other"), ask(kind="blob")):
            with pytest.raises(RegistryError, match=r"could not be found \(DNS\)") as repeated:
                await breaker.enter(asked)
            assert (repeated.value.code, repeated.value.failure) == (ErrorCode.UNAVAILABLE, Failure.DNS)
            assert repeated.value.retry_after == failures.RETRY_AFTER

    async def test_lets_one_pass_at_a_time__after_a_while(self, clock: list[float], breaker: Breaker) -> None:
        await made(breaker, ask(), unreachable(Failure.REFUSED))
        clock[0] += 0.4
        with pytest.raises(RegistryError):
            await breaker.enter(ask())
        clock[0] += 0.1
        assert await breaker.enter(ask())
        for _ in range(3):
            clock[0] += 100
            with pytest.raises(RegistryError):
                await breaker.enter(ask("other"))
        breaker.leave(ask(), unreachable(Failure.REFUSED), was_probe=True)
        clock[0] += 0.9
        with pytest.raises(RegistryError):
            await breaker.enter(ask())
        clock[0] += 0.1
        assert await breaker.enter(ask())

    async def test_lets_another_one_pass__after_one_that_gave_up(self, clock: list[float], breaker: Breaker) -> None:
        await made(breaker, ask(), unreachable(Failure.REFUSED))
        clock[0] += 1
        await made(breaker, ask(), KeyboardInterrupt())
        assert breaker.is_open
        clock[0] += 2
        assert await breaker.enter(ask())

    async def test_has_all_wait__for_the_one_that_finds_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mirror.source.upstream.breaker._LONGEST_WAIT", 60.0)
        breaker = Breaker(lambda _: None, is_patient=True)
        await made(breaker, ask(), unreachable(Failure.REFUSED))
        assert await breaker.enter(ask(is_quick=False))
        others = [asyncio.create_task(breaker.enter(ask(is_quick=False))) for _ in range(20)]
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in others)
        breaker.leave(ask(), unreachable(Failure.DNS), was_probe=True)
        for task in others:
            with pytest.raises(RegistryError, match="DNS"):
                await task
        assert await breaker.enter(ask(is_quick=False))
        others = [asyncio.create_task(breaker.enter(ask(is_quick=False))) for _ in range(20)]
        await asyncio.sleep(0.01)
        breaker.leave(ask(), None, was_probe=True)
        assert not any(await asyncio.gather(*others))

    async def test_has_nobody_wait__for_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mirror.source.upstream.breaker._FIRST_PAUSE", 0.0)
        monkeypatch.setattr("mirror.source.upstream.breaker._LONGEST_WAIT", 0.1)
        breaker = Breaker(lambda _: None, is_patient=True)
        await made(breaker, ask(), unreachable(Failure.REFUSED))
        assert await breaker.enter(ask(is_quick=False))
        with pytest.raises(RegistryError, match="refused"):
            await breaker.enter(ask(is_quick=False))

    async def test_lets_pass__whoever_looks_for_its_end(self, breaker: Breaker) -> None:
        await made(breaker, ask(), unreachable(Failure.REFUSED))
        for _ in range(3):
            assert not await breaker.enter(ask(is_probe=True))
        breaker.leave(ask(is_probe=True), None, was_probe=False)
        assert not breaker.is_open

    async def test_holds_back__the_one_repository_that_fails(self, breaker: Breaker) -> None:
        for _ in range(2):
            await made(breaker, ask("bad"), unreachable(Failure.TIMEOUT))
        with pytest.raises(RegistryError):
            await breaker.enter(ask("bad"))
        await made(breaker, ask("good"), unreachable(Failure.TIMEOUT))
        for name in ("good", "bad", "unknown"):
            with pytest.raises(RegistryError):
                await breaker.enter(ask(name))


class TestClosing:
    @pytest.mark.parametrize(
        "error",
        [
            None,
            refused(404),
            refused(403),
            refused(401),
            refused(429),
            unreachable(Failure.TIMEOUT, OTHER_HOST),
            RegistryError(ErrorCode.DENIED, "no token", failure=Failure.CREDENTIALS),
            RegistryError(ErrorCode.MANIFEST_UNKNOWN, "no such listing"),
        ],
        ids=repr,
    )
    async def test_takes_one_answer__whatever_it_is(
        self, error: RegistryError | None, clock: list[float], breaker: Breaker, told: list[RegistryError | None]
    ) -> None:
        await made(breaker, ask(), unreachable(Failure.DNS))
        clock[0] += 1
        await made(breaker, ask(), error)
        assert not breaker.is_open
        assert told[1:] == [None]
        assert not await breaker.enter(ask())

    async def test_is_not_done__by_what_was_not_sent(self, clock: list[float], breaker: Breaker) -> None:
        await made(breaker, ask(), unreachable(Failure.DNS))
        limited = RegistryError(ErrorCode.TOOMANYREQUESTS, "not now", failure=Failure.TOO_MANY)
        for error in (failures.crowded(UPSTREAM), limited):
            clock[0] += 5
            await made(breaker, ask(), error)
            assert breaker.is_open

    async def test_is_seen__in_the_metrics(self, clock: list[float]) -> None:
        registry = new_registry()
        breakers = Breakers(HubMetrics(registry))

        def is_up() -> float | None:
            return registry.get_sample_value("layover_upstream_up", {"upstream": HOST})

        breaker = breakers.of(UPSTREAM, "")
        assert (is_up(), breakers.of(UPSTREAM, "") is breaker) == (1, True)
        await made(breaker, ask(), unreachable(Failure.REFUSED))
        assert is_up() == 0
        await made(breakers.of(UPSTREAM, "https://near.example"), ask(), None)
        assert is_up() == 0
        clock[0] += 1
        await made(breaker, ask(), None)
        assert is_up() == 1
        await made(breakers.of(UPSTREAM, "https://near.example"), ask(), unreachable(Failure.REFUSED))
        assert is_up() == 1
