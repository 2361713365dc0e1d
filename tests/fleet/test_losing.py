"""Losing Redis in every way: nobody waits for it, nothing fails, and it all comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import structlog
from redis.exceptions import BusyLoadingError, ClusterDownError, ResponseError

from mirror.fleet import Claim, Fact, Leave, Posted, RedisCoordinator, Turn, Wish, allowance
from mirror.fleet.link import _reason
from mirror.oci.digest import Digest
from tests.fleet.members import Fleet, digest, eventually, metric
from tests.fleet.servers import Cluster, Sentinels, TlsRedis, Valkey

X = digest(0)
MOST = 0.25
# What a busy machine adds to a wait; a wait for a server that says nothing would last for ever.
SLACK = 0.5


@pytest.fixture
async def fleet(valkey: Valkey, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Return a fleet whose server may be harmed."""
    async with Fleet(tmp_path / "stores", valkey.url) as empty:
        yield empty


async def goes_on_alone(one: RedisCoordinator) -> None:
    """Check that everything is answered, and nothing waited for."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(50):
        assert await one.claim(X) == Claim()
        assert await one.consult("topic", 0, 30) == Turn("topic", 0)
        assert not await one.holders(X)
        assert await one.release([Wish(X, 1, 1)]) == {X: Leave(may_go=True)}
        assert await one.order("purge", "x") is None
        assert await one.orders(0) is None
        await one.yield_up(X, is_held=True)
        await one.post(Turn("topic", 7), b"", 1.0, 1.0)
    assert loop.time() - began < MOST + SLACK
    assert not one.is_up
    assert not one.siblings
    assert abs(one.time - time.time()) < 5


class TestRefused:
    async def test_goes_on_alone__and_comes_back(self, fleet: Fleet, valkey: Valkey) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        with structlog.testing.capture_logs() as logs:
            valkey.kill()
            await eventually(lambda: all("refuses connections" in each.state for each in (one, two)), "it is noticed")
            await goes_on_alone(one)
            registry = fleet.registries["one"]
            await eventually(lambda: metric(registry, "layover_fleet_up") == 0, "it is shown")
            assert metric(registry, "layover_fleet_replicas") == 0
            valkey.start()
            await eventually(lambda: one.is_up and two.is_up and one.siblings and two.siblings, "all are back")
        told = [each["reason"] for each in logs if "away" in each["event"] and each["reason"] == "refuses connections"]
        assert len(told) == 2, "each of the two says it once"
        await eventually(lambda: metric(registry, "layover_fleet_up") == 1, "it is shown")

    async def test_starts__without_it(self, fleet: Fleet, valkey: Valkey) -> None:
        valkey.kill()
        one = await fleet.start("one")
        await goes_on_alone(one)
        valkey.start()
        await eventually(lambda: one.is_up, "it is there")

    async def test_ends_a_wait__for_another_s_answer(self, fleet: Fleet, valkey: Valkey) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        await one.consult("topic", 0, 30)
        waiting = asyncio.create_task(two.consult("topic", 0, 60))
        await asyncio.sleep(0.1)
        valkey.kill()
        async with asyncio.timeout(20):
            assert await waiting == Turn("topic", 0)


class TestBlackHole:
    async def test_is_waited_for__once_and_briefly(self, fleet: Fleet, valkey: Valkey) -> None:
        one = await fleet.member("one")
        valkey.pause()
        began = time.monotonic()
        with allowance():
            assert await one.claim(X) == Claim()
            assert await one.claim(digest(1)) == Claim()
            assert await one.consult("topic", 0, 30) == Turn("topic", 0)
        assert time.monotonic() - began < MOST + SLACK
        await eventually(lambda: "did not answer within 750 ms" in one.state, "it is known")
        await goes_on_alone(one)
        valkey.resume()
        await eventually(lambda: one.is_up, "it is back")

    async def test_is_shared__by_all_who_wait(self, fleet: Fleet, valkey: Valkey) -> None:
        one = await fleet.member("one")
        valkey.pause()
        began = time.monotonic()
        claims = await asyncio.gather(*(one.claim(digest(number)) for number in range(500)))
        assert time.monotonic() - began < MOST + 2 * SLACK
        assert set(claims) == {Claim()}
        valkey.resume()
        await eventually(lambda: one.is_up, "it is back")

    async def test_is_not_seen__in_a_loop_that_was_busy(self, fleet: Fleet) -> None:
        one = await fleet.member("one")
        for number in range(5):
            claiming = asyncio.create_task(one.claim(digest(number)))
            await asyncio.sleep(0)
            time.sleep(0.4)  # noqa: ASYNC251 - the loop is to be held up
            assert (await claiming).regional is not None
        assert one.is_up

    async def test_forgets_nothing__that_was_to_be_told(self, fleet: Fleet, valkey: Valkey) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        valkey.pause()
        one.holds(X, 1)
        await one.yield_up(digest(1), is_held=True)
        await asyncio.sleep(0.5)
        valkey.resume()
        await eventually(lambda: one.is_up and two.is_up and two.siblings, "it is back")
        await eventually(lambda: not one._copies._pending, "all was told")
        assert await two.copies([X, digest(1)]) == {X: 1, digest(1): 1}


class TestEmpty:
    async def test_is_told__what_was_brought_while_it_was_away(
        self, fleet: Fleet, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        valkey.kill()
        await eventually(lambda: not one.is_up, "it is noticed")
        await one.yield_up(X, is_held=True)
        # What was told shortly before is told again in any case.
        monkeypatch.setattr("mirror.fleet.copies._RECENT_SECONDS", 0.0)
        valkey.start()
        await eventually(lambda: one.is_up and two.is_up and not one._copies._pending, "all was told")
        assert await two.copies([X]) == {X: 1}

    async def test_is_noticed__and_told_again(self, fleet: Fleet, valkey: Valkey) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        claimed = (await one.claim(X)).regional
        one.share(Fact("pause", "k", b"x", one.time, one.time + 600))
        await eventually(lambda: two.facts("pause"), "it is heard")
        held = [digest(number) for number in range(1, 10_001)]

        def tell() -> None:
            for each in held:
                two.holds(each, 1)

        told: list[str] = []
        one.on_amnesia(lambda: told.append("one"))
        two.on_amnesia(tell)
        two.on_order(lambda: told.append("order"))
        valkey.restart()
        await eventually(lambda: "one" in told and "order" in told, "it is noticed")
        await eventually(lambda: two.is_up and not two._copies._pending, "all was told", 60)
        assert await one.copies(held) == dict.fromkeys(held, 1)
        await eventually(lambda: valkey.ask("HLEN", "{layover}:1:facts") == 1, "facts are there again")
        await eventually(lambda: valkey.ask("EXISTS", b"{layover}:1:l:2" + bytes.fromhex(X.hex)), "leases as well")
        assert (await two.claim(X)).regional == claimed

    async def test_keeps_the_fleet_whole__where_urls_are_proven(self, fleet: Fleet, valkey: Valkey) -> None:
        one = await fleet.start("one", check=lambda _: True)
        two = await fleet.start("two", check=lambda _: True)
        await eventually(lambda: one.is_up and two.is_up and one.siblings and two.siblings, "both are members")
        told: list[str] = []
        one.on_amnesia(lambda: told.append("one"))
        two.on_amnesia(lambda: told.append("two"))
        valkey.restart()
        await eventually(lambda: {"one", "two"} <= set(told), "it is noticed")
        await eventually(lambda: one.is_up and two.is_up and one.siblings and two.siblings, "both are members")
        await one.yield_up(X, is_held=True)
        assert [each.identity for each in (await two.claim(X)).holders] == [one.identity]


class TestLostWrites:
    async def test_are_made_good__after_each_connection(self, fleet: Fleet, valkey: Valkey) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        held, released = digest(1), digest(2)
        for each in (held, released):
            await one.yield_up(each, is_held=True)
        await two.yield_up(released, is_held=True)
        assert (await one.release([Wish(released, 1, 1)]))[released].may_go
        valkey.ask("SREM", b"{layover}:1:h:2" + bytes.fromhex(held.hex), one._fleet.seat)
        valkey.ask("SADD", b"{layover}:1:h:2" + bytes.fromhex(released.hex), one._fleet.seat)
        assert await two.copies([held]) == {}
        assert [each.identity for each in await two.holders(released)] == [one.identity]
        await eventually(lambda: valkey.ask("PUBSUB", "NUMSUB", "{layover}:1:all")[1] == 2, "both listen")
        for kind in ("normal", "pubsub"):
            valkey.ask("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        found: dict[Digest, int] = {}
        async with asyncio.timeout(20):
            while found != {held: 1, released: 0}:
                await asyncio.sleep(0.05)
                found = dict(await two.copies([held, released]))
        assert {each.identity for each in await one.holders(released)} == {two.identity}


class TestRefusals:
    async def test_out_of_memory(self, fleet: Fleet, valkey: Valkey) -> None:
        one = await fleet.member("one")
        valkey.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        valkey.ask("CONFIG", "SET", "maxmemory", "1")
        await eventually(lambda: "is out of memory" in one.state, "it is known")
        await goes_on_alone(one)
        valkey.ask("CONFIG", "SET", "maxmemory", "0")
        await eventually(lambda: one.is_up, "it is back")

    async def test_a_wrong_password__is_told_without_it(self, tmp_path: Path) -> None:
        with Valkey(tmp_path / "valkey", password="right") as valkey, structlog.testing.capture_logs() as logs:
            async with Fleet(tmp_path / "stores", valkey.url.replace("right", "wr0ng")) as fleet:
                one = await fleet.start("one")
                await eventually(lambda: "refuses the user or the password" in one.state, "it is known")
                await goes_on_alone(one)
        assert logs
        assert "wr0ng" not in str(logs)
        assert "wr0ng" not in one.state

    async def test_a_user__that_may_do_what_docs_fleet_says(self, valkey: Valkey, tmp_path: Path) -> None:
        document = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text()
        rights = document.partition("A user of its own needs `")[2].partition("`")[0].split()
        valkey.ask("ACL", "SETUSER", "layover", "on", ">secret", *rights)
        async with Fleet(tmp_path / "stores", valkey.url.replace("redis://", "redis://layover:secret@")) as fleet:
            one, two = await fleet.member("one"), await fleet.member("two")
            turn = await one.consult("topic", 0, 30)
            waiting = asyncio.create_task(two.consult("topic", 0, 30))
            assert isinstance(turn, Turn)
            await one.post(turn, b"x", one.time, 60)
            assert isinstance(await waiting, Posted)
            assert (await one.claim(X)).regional is not None
            assert await two.send(one.identity, "offer", b"x")
            one.used({X: 1})
            await one._uses._flush()
            assert await two.order("pin", "x") is not None

    async def test_a_password_that_changes__with_its_file(self, tmp_path: Path) -> None:
        file = tmp_path / "url"
        with Valkey(tmp_path / "valkey", password="right") as valkey:
            file.write_text(valkey.url.replace("right", "wrong"))
            async with Fleet(tmp_path / "stores", valkey.url) as fleet:
                one = await fleet.start("one", url_file=str(file))
                await eventually(lambda: "refuses the user or the password" in one.state, "it is known")
                file.write_text(valkey.url + "\n")
                await eventually(lambda: one.is_up, "it is there")

    async def test_a_replica__that_takes_no_writes(self, fleet: Fleet, valkey: Valkey) -> None:
        one = await fleet.member("one")
        valkey.ask("REPLICAOF", "127.0.0.1", "1")
        await eventually(lambda: "is a replica, not the master" in one.state, "it is known")
        await goes_on_alone(one)
        valkey.ask("REPLICAOF", "NO", "ONE")
        await eventually(lambda: one.is_up, "it is back")

    async def test_scripts_that_were_flushed__are_no_loss(self, fleet: Fleet, valkey: Valkey) -> None:
        one = await fleet.member("one")
        for number in range(3):
            valkey.ask("SCRIPT", "FLUSH")
            assert (await one.claim(digest(number))).regional is not None
        assert one.is_up

    async def test_a_script_that_fails__fails_alone(self, fleet: Fleet, valkey: Valkey) -> None:
        one = await fleet.member("one")
        valkey.ask("SET", b"{layover}:1:h:2" + bytes.fromhex(X.hex), "no set")
        assert not await one.holders(X)
        assert one.is_up

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (BusyLoadingError("Redis is loading"), "is loading its data"),
            (ClusterDownError("The cluster is down"), "is part of a Cluster that is down"),
            (ResponseError("MISCONF Redis is configured to save"), "cannot write to its disk"),
            (ResponseError("BUSY Redis is busy running a script"), "is busy with a script"),
            (ResponseError("ERR Error running script: -READONLY You can't write"), "is a replica, not the master"),
            (ResponseError("ERR user_script:3: attempt to index nil"), ""),
        ],
    )
    def test_are_told_apart(self, error: Exception, said: str) -> None:
        assert _reason(error).startswith(said)
        assert bool(_reason(error)) == bool(said)


class TestSentinel:
    async def test_follows_a_fail_over__and_keeps_a_copy_whatever_that_loses(
        self, sentinels: Sentinels, tmp_path: Path
    ) -> None:
        async with Fleet(tmp_path / "stores", sentinels.url) as fleet:
            members = [await fleet.member(f"member-{number}") for number in range(3)]
            await members[0].yield_up(X, is_held=True)
            order = await members[0].order("pin", "x")
            assert sentinels.master.ask("WAIT", 1, 5000) == 1
            stores = [Store(each) for each in members]
            calm = [digest(1 + number) for number in range(100)]
            await race(calm, stores)
            failing = asyncio.get_running_loop().run_in_executor(None, sentinels.fail_over)
            stormy: list[Digest] = []
            while not (failing.done() and all(each.is_up for each in members)):
                stormy.append(digest(101 + len(stormy)))
                await race(stormy[-1:], stores)
                await asyncio.sleep(0.001)
            await failing
            again = [digest(101 + len(stormy) + number) for number in range(100)]
            await race(again, stores)
            assert {one: copies(one, stores) for one in (*calm, *again)} == dict.fromkeys((*calm, *again), 1)
            assert not [one for one in stormy if not copies(one, stores)]
            await eventually(lambda: not any(each._copies._pending for each in members), "all was told again")
            assert await members[1].copies([X]) == {X: 1}
            assert await members[1].orders(0) == [order]


class Store:
    """Files, and a janitor that asks the keeper before one goes."""

    def __init__(self, coordinator: RedisCoordinator) -> None:
        self.coordinator = coordinator
        self.files: set[Digest] = set()
        self.leaving: set[Digest] = set()

    async def fetch(self, one: Digest) -> None:
        self.files.add(one)
        await self.coordinator.yield_up(one, is_held=True)

    async def has(self, one: Digest) -> bool:
        """Promise to keep a file, unless it is on its way out."""
        if one not in self.files or one in self.leaving:
            return False
        await self.coordinator.hold([one], 60)
        return True

    async def evict(self, one: Digest, stores: list[Store]) -> None:
        leave = (await self.coordinator.release([Wish(one, 1, 1)]))[one]
        if not leave.may_go or leave.keeper is None:
            return
        keeper = next(each for each in stores if each.coordinator.identity == leave.keeper.identity)
        self.leaving.add(one)
        if await keeper.has(one):
            self.files.discard(one)
        else:
            await self.coordinator.yield_up(one, is_held=True)
        self.leaving.discard(one)


async def race(digests: Sequence[Digest], stores: list[Store]) -> None:
    """Have all want to evict the same at the same time."""
    for one in digests:
        await asyncio.gather(*(each.fetch(one) for each in stores))
        await asyncio.gather(*(each.evict(one, stores) for each in stores))


def copies(one: Digest, stores: list[Store]) -> int:
    return sum(one in each.files for each in stores)


class TestCluster:
    async def test_is_only_another_address(self, cluster: Cluster, tmp_path: Path) -> None:
        async with Fleet(tmp_path / "stores", cluster.url) as fleet:
            one, two = await fleet.member("one", "eu"), await fleet.member("two", "us")
            turn = await one.consult("topic", 0, 30)
            waiting = asyncio.create_task(two.consult("topic", 0, 30))
            assert isinstance(turn, Turn)
            await one.post(turn, b"x", one.time, 60)
            assert isinstance(await waiting, Posted)
            await one.yield_up(X, is_held=True)
            owner = cluster.owner("{layover}")
            assert owner.ask("DBSIZE") > 0
            owner.kill()
            await eventually(lambda: not one.is_up and not two.is_up, "it is noticed")
            await eventually(lambda: one.is_up and two.is_up and two.siblings, "its replica has taken over", 40)
            await eventually(lambda: not one._copies._pending, "what was told last was told again")
            assert await two.copies([X]) == {X: 1}
            assert cluster.replica_of(owner).ask("ROLE")[0] == b"master"


class TestTls:
    async def test_serves__a_server_that_is_trusted(
        self, tls_redis: TlsRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(tls_redis.certificate))
        async with Fleet(tmp_path / "stores", tls_redis.url) as fleet:
            one, two = await fleet.member("one"), await fleet.member("two")
            turn = await one.consult("topic", 0, 30)
            waiting = asyncio.create_task(two.consult("topic", 0, 30))
            assert isinstance(turn, Turn)
            await one.post(turn, b"x", one.time, 60)
            assert isinstance(await waiting, Posted)
            one.used({X: 1})
            await one._uses._flush()
            assert await two.popularity([X])

    async def test_refuses__one_that_is_not(self, tls_redis: TlsRedis, tmp_path: Path) -> None:
        async with Fleet(tmp_path / "stores", tls_redis.url) as fleet:
            one = await fleet.start("one")
            await eventually(lambda: "cannot be talked to by TLS: self-signed certificate" in one.state, "it is known")
            await goes_on_alone(one)
