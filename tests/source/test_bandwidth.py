"""Bandwidth: what passes in some seconds, and who gets how much of it."""

from __future__ import annotations

import asyncio

import pytest

from mirror.source.upstream.bandwidth import Bandwidth


class Clock:
    """Time that passes only while everybody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self._sleeping: list[tuple[float, asyncio.Future[None]]] = []
        monkeypatch.setattr("mirror.source.upstream.bandwidth.time.monotonic", lambda: self.now)
        monkeypatch.setattr("mirror.source.upstream.bandwidth.asyncio.sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        self._sleeping.append((self.now + seconds, woken))
        await woken

    async def run(self, seconds: float, late: float = 0.0) -> None:
        """Let time pass; each timer fires so much too late."""
        end = self.now + seconds
        while True:
            for _ in range(20):
                turn = asyncio.get_running_loop().create_future()
                asyncio.get_running_loop().call_soon(turn.set_result, None)
                await turn
            self._sleeping.sort(key=lambda each: each[0])
            if not self._sleeping or self._sleeping[0][0] > end:
                self.now = end
                return
            at, woken = self._sleeping.pop(0)
            self.now = max(self.now, at + late)
            woken.set_result(None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def stream(bandwidth: Bandwidth, received: list[int], piece: int | None = None) -> None:
    """Receive for ever as fast as is allowed."""
    received.append(0)
    place = len(received) - 1
    while True:
        received[place] += piece or bandwidth.piece
        await bandwidth.pay(piece or bandwidth.piece)


async def after(clock: Clock, seconds: float, *streams: asyncio.Task[None], late: float = 0.0) -> None:
    await clock.run(seconds, late)
    for task in streams:
        task.cancel()


class TestBandwidth:
    @pytest.mark.parametrize("rate", [10_000, 2**20, 50 * 2**20])
    @pytest.mark.parametrize("streams", [1, 7])
    async def test_is_the_rate__however_many_streams(self, rate: int, streams: int, clock: Clock) -> None:
        bandwidth, received = Bandwidth(rate), list[int]()
        tasks = [asyncio.create_task(stream(bandwidth, received)) for _ in range(streams)]
        await after(clock, 10.0, *tasks)
        # The last piece of each stream has arrived and is being paid for.
        assert 0.95 * 10 * rate <= sum(received) <= 1.05 * 10 * rate + streams * bandwidth.piece
        # Who came first had what may pass at once.
        assert max(received) - min(received) <= 2 * bandwidth.piece + 0.11 * rate

    async def test_is_the_rate__though_timers_are_late(self, clock: Clock) -> None:
        bandwidth, received = Bandwidth(2**20), list[int]()
        await after(clock, 10.0, asyncio.create_task(stream(bandwidth, received)), late=0.02)
        assert 0.9 * 10 * 2**20 <= received[0] <= 1.05 * 10 * 2**20

    async def test_is_not_saved_up__while_nothing_arrives(self, clock: Clock) -> None:
        bandwidth, received = Bandwidth(2**20), list[int]()
        await clock.run(3600.0)
        await after(clock, 5.0, asyncio.create_task(stream(bandwidth, received)))
        assert received[0] <= 1.1 * 5 * 2**20

    async def test_is_left_to_others__by_those_who_use_less(self, clock: Clock) -> None:
        bandwidth, received = Bandwidth(2**20), list[int]()
        tasks = [asyncio.create_task(stream(bandwidth, received, piece)) for piece in (2**10, None)]
        await after(clock, 5.0, *tasks)
        assert received[1] > 20 * received[0]
        assert sum(received) >= 0.95 * 5 * 2**20

    @pytest.mark.parametrize("rate", [1, 1000, 2**20, 2**40])
    def test_passes__in_pieces_that_are_neither_dust_nor_lumps(self, rate: int) -> None:
        assert 2**10 <= Bandwidth(rate).piece <= 2**16
