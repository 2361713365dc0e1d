"""The parts of a coordinator that need no Redis."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from mirror.config import ConfigError, FleetSettings, Host, RedisUrl, Secret
from mirror.config.units import Address
from mirror.fleet import Identity, RedisAddress, allowance, within_allowance
from mirror.fleet.address import own_url
from mirror.fleet.clock import FleetClock
from mirror.fleet.locating import CONNECT_SECONDS, Locator, NotFound
from mirror.fleet.waiting import seconds_left, spending
from tests.fleet.servers import Sentinels

ANYWHERE = Address("0.0.0.0", 5000)  # noqa: S104 - nothing listens there


class TestIdentity:
    def test_stays__with_the_store(self, tmp_path: Path) -> None:
        first, second = Identity(tmp_path), Identity(tmp_path)
        first.load()
        second.load()
        assert second.uuid == first.uuid
        assert second.former == first.boot != second.boot

    @pytest.mark.parametrize("content", [b"", b"nonsense", b"{}", b'{"identity": "no-uuid"}', b"\xff"])
    def test_is_another__where_the_file_is_damaged(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "identity").write_bytes(content)
        damaged, again = Identity(tmp_path), Identity(tmp_path)
        damaged.load()
        again.load()
        assert len(damaged.uuid) == 36
        assert again.uuid == damaged.uuid

    def test_is_there__on_a_disk_that_takes_nothing(self, tmp_path: Path) -> None:
        identity = Identity(tmp_path / "missing")
        identity.load()
        assert len(identity.uuid) == 36


class TestClock:
    @pytest.fixture(autouse=True)
    def _at(self) -> None:
        self.now = 1000.0

    def clock(self, wall: float = 5000.0) -> FleetClock:
        return FleetClock(lambda: self.now, lambda: wall)

    def test_is_the_replica_s_own__until_redis_was_asked(self) -> None:
        clock = self.clock()
        self.now += 7
        assert clock() == 5007

    def test_is_redis_s__however_wrong_the_replica_s_own_is(self) -> None:
        clock = self.clock(wall=5000.0 + 3600)
        clock.sample(self.now, 5000.0, self.now)
        assert clock() == 5000
        self.now += 10
        assert clock() == 5010

    def test_takes_the_middle__of_an_answer_s_way(self) -> None:
        clock = self.clock()
        clock.sample(self.now - 2, 5000.0, self.now)
        assert clock() == 5001

    def test_is_not_led_astray__by_one_slow_answer(self) -> None:
        clock = self.clock()
        for _ in range(3):
            clock.sample(self.now, 5000.0, self.now)
        clock.sample(self.now - 100, 5000.0, self.now)
        self.now += 1000
        assert clock() == 6000

    @pytest.mark.parametrize("leap", [-3600.0, -1.0, 1.0, 3600.0])
    def test_never_steps__whatever_redis_says(self, leap: float) -> None:
        clock = self.clock()
        clock.sample(self.now, 5000.0, self.now)
        last = clock()
        for _ in range(20_000):
            self.now += 1
            clock.sample(self.now, 4000.0 + self.now + leap, self.now)
            assert 0.4 < clock() - last < 1.6
            last = clock()
        assert last == pytest.approx(4000.0 + self.now + leap)


class TestAllowance:
    async def test_is_shared__by_the_tasks_of_a_request(self) -> None:
        async def wait() -> None:
            with spending():
                await asyncio.sleep(0.05)

        with allowance():
            await asyncio.gather(asyncio.create_task(wait()), wait())
            assert seconds_left() <= 0.15
            with allowance():
                assert seconds_left() == 0.25
        assert seconds_left() == 0.25

    async def test_is_new__for_each_call(self) -> None:
        @within_allowance
        async def answer() -> float:
            before = seconds_left()
            with spending():
                time.sleep(0.01)  # noqa: ASYNC251 - it is to be spent
            assert seconds_left() < before
            return before

        assert [await answer(), await answer()] == [0.25, 0.25]

    def test_is_never_less_than_nothing(self) -> None:
        with allowance():
            with spending():
                time.sleep(0.3)
            assert seconds_left() == 0


class TestAddress:
    async def test_is_the_configured_one(self) -> None:
        assert await own_url("https://me.example", [ANYWHERE], Host("127.0.0.1", 1)) == ("https://me.example")

    async def test_is_that_on_the_way_to_redis(self) -> None:
        assert await own_url("", [ANYWHERE], Host("127.0.0.1", 1)) == "http://127.0.0.1:5000"
        assert await own_url("", [ANYWHERE], Host("localhost", 1)) in {
            "http://127.0.0.1:5000",
            "http://[::1]:5000",
        }

    async def test_is_the_one_listened_at__where_that_is_one(self) -> None:
        listen = [ANYWHERE, Address("127.0.0.2", 5001)]
        assert await own_url("", listen, Host("127.0.0.1", 1)) == "http://127.0.0.2:5001"

    async def test_follows_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "url"
        file.write_text("redis://:secret@one.example\n")
        address = RedisAddress(FleetSettings(redis_url_file=str(file), secret=Secret("s")))
        assert address() == RedisUrl.parse("redis://:secret@one.example")
        assert not address.refresh()
        for bad in ("", "nonsense", "redis://:hunter2@"):
            file.write_text(bad)
            assert not address.refresh()
        file.write_text("redis://two.example")
        assert address.refresh()
        assert address().hosts == (Host("two.example", 6379),)

    @pytest.mark.parametrize("content", [None, "", "redis://:hunter2@"])
    def test_is_refused__where_a_file_is_no_good(self, tmp_path: Path, content: str | None) -> None:
        file = tmp_path / "url"
        if content is not None:
            file.write_text(content)
        with pytest.raises(ConfigError) as refused:
            RedisAddress(FleetSettings(redis_url_file=str(file), secret=Secret("s")))
        assert str(refused.value).startswith(f"fleet.redis_url_file {file}: ")
        assert "hunter2" not in str(refused.value)
        if not content:
            with pytest.raises(ConfigError, match=r"^fleet\.secret_file "):
                RedisAddress(FleetSettings(redis_url=RedisUrl.parse("redis://h"), secret_file=str(file)))


class TestLocator:
    async def test_does_not_wait__for_sentinels_that_are_gone(self, sentinels: Sentinels) -> None:
        loop = asyncio.get_running_loop()
        sentinels.sentinels[0].kill()
        sentinels.sentinels[1].pause()
        began = loop.time()
        found = await Locator().find(RedisUrl.parse(sentinels.url))
        assert found == Host("127.0.0.1", sentinels.master.port)
        assert loop.time() - began < CONNECT_SECONDS

    async def test_says__that_nobody_knows(self) -> None:
        with pytest.raises(NotFound, match=r"^127\.0\.0\.1:1 refuses connections$"):
            await Locator().find(RedisUrl.parse("redis+sentinel://127.0.0.1:1/fleet"))
        with pytest.raises(NotFound, match="cannot be reached"):
            await Locator().find(RedisUrl.parse("redis+cluster://no-such-host.invalid"))
