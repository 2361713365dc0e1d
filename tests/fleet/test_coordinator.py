"""What every coordinator promises, and what only a fleet can do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis

from mirror.fleet import (
    Alone,
    Claim,
    Coordinator,
    Fact,
    Filler,
    Leave,
    Message,
    Posted,
    RedisCoordinator,
    Sibling,
    Turn,
    Wish,
    copies,
    topics,
)
from mirror.fleet.locating import ROOT
from mirror.oci.digest import Digest
from tests.fleet.members import Fleet, digest, eventually, metric
from tests.fleet.servers import Valkey

X = digest(0)


@pytest.fixture(params=["alone", "redis", "redis is away"])
async def one(request: pytest.FixtureRequest, shared_valkey: Valkey, tmp_path: Path) -> AsyncIterator[Coordinator]:
    """Return a replica that has no siblings."""
    if request.param == "alone":
        yield Alone("identity", "local")
        return
    shared_valkey.ask("FLUSHALL")
    url = shared_valkey.url if request.param == "redis" else "redis://127.0.0.1:1"
    async with Fleet(tmp_path / "stores", url) as fleet:
        made = await fleet.start("one")
        if request.param == "redis":
            await eventually(lambda: made.is_up, "it is up")
        yield made


class TestOne:
    """With nobody else there all coordinators say the same, whether or not there is a Redis."""

    def test_knows__itself(self, one: Coordinator) -> None:
        assert one.identity
        assert one.region == "local"
        assert one.state
        assert not one.siblings

    def test_tells__the_time(self, one: Coordinator) -> None:
        assert abs(one.time - time.time()) < 5

    async def test_finds__nobody(self, one: Coordinator) -> None:
        one.holds(X, 1)
        assert tuple(await one.holders(X)) == ()
        assert not any((await one.copies([X])).values())

    async def test_lets_it_fill(self, one: Coordinator) -> None:
        claim = await one.claim(X)
        assert claim.holders == ()
        assert {each.identity for each in (claim.regional, claim.leading) if each} <= {one.identity}
        assert (claim.regional is None) == (claim.leading is None) == (not one.is_up)
        again = await one.claim(X, Filler("another", 1))
        assert again == claim
        assert await one.claim(X, may_lead=False) == claim
        await one.yield_up(X, is_held=True, size=1)

    async def test_lets_it_ask__at_once(self, one: Coordinator) -> None:
        turn = await one.consult("topic", 0.0, 30.0)
        assert isinstance(turn, Turn)
        assert turn.topic == "topic"
        assert bool(turn.fence) == one.is_up
        await one.leave(turn)
        again = await one.consult("topic", 0.0, 30.0)
        assert isinstance(again, Turn)
        await one.post(again, b"answer", one.time, 60.0)

    def test_knows__no_facts_of_a_kind_that_nobody_shared(self, one: Coordinator) -> None:
        one.on_fact("quota", lambda _: None)
        assert not one.facts("quota")

    async def test_releases__with_nobody_to_keep(self, one: Coordinator) -> None:
        leaves = await one.release([Wish(X, 1, 0)])
        assert leaves[X].may_go
        assert leaves[X].keeper is None

    async def test_sends__nothing_to_nobody(self, one: Coordinator) -> None:
        one.on_message("offer", lambda _: None)
        assert await one.send("nobody", "offer", b"x") is False

    async def test_orders__only_where_there_is_a_fleet(self, one: Coordinator) -> None:
        one.on_order(lambda: None)
        one.on_amnesia(lambda: None)
        given = await one.order("purge", "docker.io/*")
        assert (given is not None) == one.is_up
        if given:
            assert await one.orders(given.number - 1) == [given]
            await one.restore([given])
        elif not isinstance(one, Alone):
            assert await one.orders(0) is None

    async def test_counts__uses(self, one: Coordinator) -> None:
        one.used({X: 2})
        assert set(await one.popularity([X])) <= {X}
        one.describe(10, 1)
        one.serves()
        one.lost(X)
        one.misses("another", X)
        await one.hold([X], 1.0)


class TestMembers:
    async def test_know_each_other(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one", "eu"), await fleet.member("two", "us")
        seen = one.siblings[two.identity]
        assert (seen.label, seen.region, seen.version, seen.boot) == ("two", "us", "1.0", two.boot)
        assert seen.url == "http://127.0.0.1:5001"
        assert one.identity not in one.siblings
        assert one.state == "a member of 2 replicas"

    async def test_tell__how_they_do(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        two.describe(129_999_999, 17)
        await eventually(lambda: one.siblings[two.identity].load == 17, "it is heard of")
        assert one.siblings[two.identity].room == 120_000_000

    async def test_say__that_nobody_else_is_there(self, fleet: Fleet) -> None:
        one = await fleet.member("one")
        assert one.state == "the only replica of the fleet"

    async def test_forget__at_once_who_says_goodbye(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        await two.close()
        await eventually(lambda: not one.siblings, "it is forgotten", 3)

    async def test_forget__in_seconds_who_vanishes(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        fleet.abandon(two)
        await eventually(lambda: not one.siblings, "it is forgotten", 10)

    async def test_are_counted__by_region(self, fleet: Fleet) -> None:
        await fleet.member("one", "eu")
        await fleet.member("two", "us")
        registry = fleet.registries["one"]
        await eventually(lambda: metric(registry, "layover_fleet_replicas") == 2, "two replicas are shown")
        assert metric(registry, "layover_fleet_replicas", peer_region="us") == 1
        assert metric(registry, "layover_fleet_up") == 1
        assert metric(registry, "layover_fleet_seconds_count", operation="beat") >= 1

    async def test_keep__their_identity_over_a_restart(self, fleet: Fleet) -> None:
        one, first = await fleet.member("one"), await fleet.member("two")
        identity, boot = first.identity, first.boot
        fleet.abandon(first)
        again = await fleet.member("again", store="two")
        assert again.identity == identity
        await eventually(lambda: one.siblings[identity].boot == again.boot != boot, "the new run is known")

    async def test_refuse__a_second_with_one_identity(self, fleet: Fleet, tmp_path: Path) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        (tmp_path / "stores" / "copy").mkdir()
        (tmp_path / "stores" / "copy" / "identity").write_text(f'{{"identity": "{two.identity}", "boot": "other"}}')
        copy = await fleet.start("copy")
        await eventually(lambda: "has the identity" in copy.state, "it is said")
        assert not copy.is_up
        assert not copy.siblings
        assert await copy.claim(X) == Claim()
        assert one.siblings[two.identity].boot == two.boot
        fleet.abandon(two, long_ago=True)
        await eventually(lambda: copy.is_up, "the one that stopped is superseded")

    async def test_refuse__a_second_that_believes_the_first_ended(self, fleet: Fleet, tmp_path: Path) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        (tmp_path / "stores" / "copy").mkdir()
        kept = (tmp_path / "stores" / "two" / "identity").read_text()
        (tmp_path / "stores" / "copy" / "identity").write_text(kept)
        copy = await fleet.start("copy")
        await eventually(lambda: "has the identity" in copy.state, "it is said")
        await eventually(lambda: two.is_up and one.siblings[two.identity].boot == two.boot, "the elder is back")


class TestProof:
    async def test_comes_from_a_sibling__before_leases(self, fleet: Fleet) -> None:
        asked: set[str] = set()

        def check(sibling: Sibling) -> bool:
            asked.add(sibling.label)
            return True

        one, two = await fleet.start("one", check=check), await fleet.start("two", check=check)
        await eventually(lambda: one.is_up and two.is_up and one.siblings and two.siblings, "both are members")
        await eventually(lambda: asked == {"one", "two"}, "each was called")
        assert (await two.claim(X)).leading is not None

    async def test_says_plainly__that_a_url_is_wrong(self, fleet: Fleet) -> None:
        def check(sibling: Sibling) -> bool:
            return "wrong" not in sibling.url

        one = await fleet.start("one", check=check)
        two = await fleet.start("two", check=check, advertise_url="http://wrong.example:5000")
        await eventually(lambda: "set fleet.advertise_url" in two.state, "it is said")
        assert "http://wrong.example:5000" in two.state
        assert not two.is_up
        assert await two.claim(X) == Claim()
        assert await two.order("purge", "x") is not None
        await eventually(lambda: one.is_up, "the other is none the worse")

    async def test_is_waited_for__by_a_claim(self, fleet: Fleet) -> None:
        answers = {"one": True}
        one = await fleet.start("one", check=lambda sibling: answers.get(sibling.label, False))
        two = await fleet.start("two", check=lambda sibling: answers.get(sibling.label, False))
        await eventually(lambda: "waiting for a sibling" in two.state, "it waits")
        answers["two"] = True
        await eventually(lambda: two.is_up, "it is proven")
        assert one.is_up


class TestHolders:
    async def test_are_not_told__to_who_claims__while_nobody_reaches_them(self, fleet: Fleet) -> None:
        one = await fleet.start("one", check=lambda sibling: "wrong" not in sibling.url)
        two = await fleet.start("two", check=lambda _: True)
        await eventually(lambda: one.is_up and two.is_up and one.siblings, "both are members")
        await two.yield_up(X, is_held=True)
        assert [each.identity for each in (await one.claim(X)).holders] == [two.identity]
        fleet.abandon(two, long_ago=True)
        again = await fleet.start("again", store="two", check=lambda _: True, advertise_url="http://wrong.example:5000")
        await eventually(lambda: "waiting for a sibling" in again.state, "it is there, at another URL")
        assert (await one.claim(X)).holders == ()

    async def test_are_told__in_batches(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        many = [digest(number) for number in range(2000)]
        for each in many:
            one.holds(each, 1)
        await eventually(lambda: not one._copies._pending, "all was sent")
        assert [each.identity for each in await two.holders(many[-1])] == [one.identity]
        assert await two.copies(many) == dict.fromkeys(many, 1)
        assert await one.copies(many) == dict.fromkeys(many, 0)
        assert await one.holders(many[0]) == ()

    async def test_end__when_a_copy_is_lost_or_missed(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        await one.yield_up(X, is_held=True)
        assert await two.copies([X, digest(1)]) == {X: 1}
        two.misses(one.identity, X)
        await eventually(lambda: not two._copies._pending, "that was sent")
        assert not await two.holders(X)
        await one.yield_up(X, is_held=True)
        one.lost(X)
        await eventually(lambda: not one._copies._pending, "that was sent")
        assert not await two.holders(X)

    async def test_are_none__of_what_a_fill_failed_to_bring(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        await one.claim(X)
        await one.yield_up(X, is_held=False)
        assert await two.copies([X]) == {}

    async def test_stay__where_a_copy_was_lost_and_came_again(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        one.lost(X)
        await one.yield_up(X, is_held=True)
        one.holds(digest(1), 1)
        await eventually(lambda: not one._copies._pending, "all was told")
        assert await two.copies([X, digest(1)]) == {X: 1, digest(1): 1}

    async def test_are_none__of_what_is_lost_as_it_is_told(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        one.holds(X, 1)
        telling = asyncio.create_task(one._copies._flush())
        await asyncio.sleep(0)
        one.lost(X)
        await telling
        assert await two.copies([X]) == {}

    async def test_are_told_again__of_this_replica_alone__and_no_lease_is_given_up(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        one.misses(two.identity, X)
        await one.claim(X)
        await one.yield_up(X, is_held=True)
        lease = (await one.claim(X)).regional
        await eventually(lambda: not one._copies._pending, "all was told")
        await two.yield_up(X, is_held=True)
        one._copies.tell_again()
        await eventually(lambda: not one._copies._pending, "it is told again")
        assert await one.copies([X]) == {X: 1}
        assert (await two.claim(X)).regional == lease

    async def test_are_all_told_again__after_too_many_to_remember(
        self, fleet: Fleet, shared_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = await fleet.member("one")
        monkeypatch.setattr(copies, "_MOST_PENDING", 10)
        forgotten: list[int] = []
        one.on_amnesia(lambda: forgotten.append(1))
        for number in range(10):
            one.holds(digest(number), 1)
        assert len(one._copies._pending) == 10
        one.holds(digest(10), 1)
        assert not one._copies._pending
        await eventually(lambda: shared_valkey.ask("PUBSUB", "NUMSUB", f"{ROOT}all")[1], "it listens")
        shared_valkey.ask("CLIENT", "KILL", "TYPE", "pubsub")
        await eventually(lambda: forgotten, "it is said on the next connection")

    async def test_count_again__after_they_were_away(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        await two.yield_up(X, is_held=True)
        fleet.abandon(two, long_ago=True)
        await eventually(lambda: not one.siblings, "it is forgotten")
        assert await one.copies([X]) == {X: 0}
        await fleet.member("again", store="two")
        assert await one.copies([X]) == {X: 1}

    async def test_know__sha512(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        long = X.of(b"x", "sha512")
        await one.yield_up(long, is_held=True)
        assert await two.copies([long]) == {long: 1}


class TestLeases:
    async def test_are_given__once_a_region_and_once_a_fleet(self, fleet: Fleet) -> None:
        here = [await fleet.member(f"eu-{number}", "eu") for number in range(2)]
        there = [await fleet.member(f"us-{number}", "us") for number in range(2)]
        claims = await asyncio.gather(*(each.claim(X) for each in (*here, *there)))
        regional = [claim.regional.identity for claim in claims if claim.regional]
        assert regional[0] == regional[1]
        assert regional[2] == regional[3]
        assert {each.identity for each in here} & {regional[0]}
        assert {each.identity for each in there} & {regional[2]}
        leading = {claim.leading for claim in claims if claim.leading}
        assert len(leading) == 1
        told = {each.identity for each, claim in zip((*here, *there), claims, strict=True) if claim.leading}
        assert told == {regional[0], regional[2]}

    async def test_are_not_taken__by_who_must_not_lead(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one", "eu"), await fleet.member("two", "us")
        assert await one.claim(X, may_lead=False) == Claim()
        leading = (await two.claim(X)).leading
        assert leading is not None
        assert leading.identity == two.identity

    async def test_of_a_region_are_taken__by_who_must_not_lead__where_others_fill_it_or_have_it(
        self, fleet: Fleet
    ) -> None:
        one, two = await fleet.member("one", "eu"), await fleet.member("two", "us")
        await two.claim(X)
        claim = await one.claim(X, may_lead=False)
        assert [each.identity for each in (claim.regional, claim.leading) if each] == [one.identity, two.identity]
        await two.yield_up(digest(1), is_held=True)
        claim = await one.claim(digest(1), may_lead=False)
        assert claim.regional is not None
        assert claim.regional.identity == one.identity

    async def test_are_known__of_who_came_a_moment_ago(self, fleet: Fleet) -> None:
        one = await fleet.member("one")
        two = await fleet.start("two")
        taken = await two.claim(X)
        assert taken.regional is not None
        assert taken.regional.identity == two.identity
        assert (await one.claim(X)).regional == taken.regional

    async def test_end__when_they_are_yielded(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one", "eu"), await fleet.member("two", "eu")
        first = await one.claim(X)
        assert (await two.claim(X)).regional == first.regional
        await one.yield_up(X, is_held=True, size=1)
        after = await two.claim(X)
        assert [each.identity for each in after.holders] == [one.identity]
        assert first.regional is not None
        assert after.regional is not None
        assert after.regional.identity == two.identity
        assert after.regional.fence > first.regional.fence

    async def test_are_taken__from_a_suspect(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one", "eu"), await fleet.member("two", "eu")
        first = (await one.claim(X)).regional
        assert first is not None
        assert (await two.claim(X, Filler(first.identity, first.fence - 1))).regional == first
        taken = await two.claim(X, first)
        assert taken.regional is not None
        assert taken.leading == taken.regional
        assert taken.regional.identity == two.identity
        assert (await one.claim(X)).regional == taken.regional

    async def test_are_not_taken__from_a_suspect_elsewhere_that_has_a_new_one(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one", "eu"), await fleet.member("two", "us")
        first = (await one.claim(X)).leading
        assert first is not None
        assert (await two.claim(X, Filler(first.identity, first.fence - 1))).leading == first

    async def test_are_told_again_and_kept(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one", "eu"), await fleet.member("two", "eu")
        first = (await one.claim(X)).regional
        with redis.Redis.from_url(fleet.url) as client:
            (key,) = client.scan_iter(match="*:l:*")
            client.delete(key)
            one._leases.renew_soon()
            await eventually(lambda: client.exists(key), "it is told again")
            client.pexpire(key, 20_000)
            one._leases.renew_soon()
            await eventually(lambda: client.pttl(key) > 30_000, "it is kept")
        assert (await two.claim(X)).regional == first

    async def test_stay__whatever_who_had_them_before_tells(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one", "eu"), await fleet.member("two", "eu")
        taken = (await two.claim(X, (await one.claim(X)).regional)).regional
        assert taken is not None
        assert taken.identity == two.identity
        await one._leases._renew([(X, "reu", 1), (X, "f", 1)])
        assert (await one.claim(X)).regional == taken
        await one.yield_up(X, is_held=False)
        await one._copies.tell_now(X, is_held=False)
        assert (await one.claim(X)).regional == taken

    async def test_are_renewed_no_more__once_another_took_them(self, fleet: Fleet, shared_valkey: Valkey) -> None:
        one, two = await fleet.member("one", "eu"), await fleet.member("two", "eu")
        await one.claim(digest(1))
        kept = shared_valkey.ask("KEYS", "*:l:*")
        await two.claim(X, (await one.claim(X)).regional)
        await one.claim(X)
        await two.yield_up(X, is_held=False)
        shared_valkey.ask("FLUSHDB")
        await eventually(lambda: shared_valkey.ask("KEYS", "*:l:*"), "what it has is told again")
        assert shared_valkey.ask("KEYS", "*:l:*") == kept

    async def test_expire(self, fleet: Fleet) -> None:
        one = await fleet.member("one", "eu")
        await one.claim(X)
        with redis.Redis.from_url(fleet.url) as client:
            (key,) = client.scan_iter(match="*:l:*")
            assert 0 < client.pttl(key) <= 60_000

    async def test_are_given_up__as_their_replica_ends(self, fleet: Fleet, shared_valkey: Valkey) -> None:
        one = await fleet.member("one")
        await one.claim(X)
        await one.close()
        assert not shared_valkey.ask("KEYS", "*:l:*")
        assert not shared_valkey.ask("KEYS", "*:h:*"), "what it filled it does not hold"

    async def test_end__with_their_replica(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one", "eu"), await fleet.member("two", "eu")
        await one.claim(X)
        fleet.abandon(one, long_ago=True)
        await eventually(lambda: not two.siblings, "it is forgotten")
        taken = (await two.claim(X)).regional
        assert taken is not None
        assert taken.identity == two.identity

    async def test_end__with_the_run_that_had_them(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one", "eu"), await fleet.member("two", "eu")
        await one.claim(X)
        fleet.abandon(one)
        await fleet.member("again", "eu", store="one")
        taken = (await two.claim(X)).regional
        assert taken is not None
        assert taken.identity == two.identity


class TestAnswers:
    async def test_are_shared__with_those_who_wait(self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(topics, "_LOOK_SECONDS", 600.0)
        members = [await fleet.member(f"member-{number}") for number in range(3)]
        began = members[0].time
        turn = await members[0].consult("topic", began, 60)
        waiting = [asyncio.create_task(each.consult("topic", began, 60)) for each in members[1:]]
        await asyncio.sleep(0.1)
        assert not any(each.done() for each in waiting)
        assert isinstance(turn, Turn)
        await members[0].post(turn, b"an answer\n", members[0].time, 60)
        async with asyncio.timeout(20):
            answers = await asyncio.gather(*waiting)
        for answer in answers:
            assert isinstance(answer, Posted)
            assert answer.value == b"an answer\n"
            assert answer.at > began
        later = await members[1].consult("topic", members[1].time + 1, 30)
        assert isinstance(later, Turn)
        assert later.fence > turn.fence

    async def test_pass_on__a_turn_that_is_left(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        turn = await one.consult("topic", 0, 30)
        waiting = asyncio.create_task(two.consult("topic", 0, 30))
        await asyncio.sleep(0.1)
        assert isinstance(turn, Turn)
        await one.leave(turn)
        assert isinstance(await waiting, Turn)

    async def test_pass_on__the_turn_of_one_that_died(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        await one.consult("topic", 0, 30)
        fleet.abandon(one, long_ago=True)
        turn = await two.consult("topic", 0, 30)
        assert isinstance(turn, Turn)
        assert turn.fence

    async def test_pass_on__the_turn_of_one_that_is_not_found(
        self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(topics, "_TURN_MILLISECONDS", 600_000)
        found = {"one": True, "two": True}
        one = await fleet.start("one", check=lambda each: found[each.label])
        two = await fleet.start("two", check=lambda each: found[each.label])
        await eventually(lambda: one.siblings and two.siblings, "they know each other")
        turn = await one.consult("topic", 0, 30)
        waiting = asyncio.create_task(two.consult("topic", 0, 60))
        # It has looked again, and found who has the turn.
        await asyncio.sleep(1.5)
        assert not waiting.done()
        found["one"] = False
        async with asyncio.timeout(20):
            taken = await waiting
        assert isinstance(turn, Turn)
        assert isinstance(taken, Turn)
        assert taken.fence > turn.fence

    async def test_are_not_waited_for__longer_than_patience(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        await one.consult("topic", 0, 30)
        turn = await two.consult("topic", 0, 0.2)
        assert turn == Turn("topic", 0)
        await two.post(turn, b"x", two.time, 60)
        assert isinstance(await one.consult("topic", 0, 1), Posted)

    async def test_are_not_replaced__by_older_ones(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        await one.post(Turn("topic"), b"new", 100.0, 60)
        await two.post(Turn("topic"), b"old", 99.0, 60)
        assert await two.consult("topic", 0, 1) == Posted(b"new", 100.0)


class TestFacts:
    async def test_reach_all__those_that_come_later_too(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        heard: list[Fact] = []
        two.on_fact("quota", heard.append)
        fact = Fact("quota", "a key", b"\x00 value", one.time, one.time + 60)
        one.share(fact)
        assert one.facts("quota") == {"a key": fact}
        await eventually(lambda: heard, "it is heard")
        assert heard[0].value == fact.value
        assert two.facts("quota").keys() == {"a key"}
        three = await fleet.member("three")
        await eventually(lambda: three.facts("quota"), "it is heard")

    async def test_give_way__to_later_ones_only(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        at = one.time
        one.share(Fact("quota", "k", b"2", at, at + 60))
        await eventually(lambda: two.facts("quota"), "it is heard")
        two.share(Fact("quota", "k", b"1", at - 1, at + 60))
        assert two.facts("quota")["k"].value == b"2"
        two.share(Fact("quota", "k", b"3", at + 1, at + 60))
        await eventually(lambda: one.facts("quota")["k"].value == b"3", "the later one holds")

    async def test_end__in_time(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        one.share(Fact("pause", "k", b"", one.time, one.time + 1.5))
        await eventually(lambda: two.facts("pause"), "it is heard")
        await eventually(lambda: not two.facts("pause") and not one.facts("pause"), "it is over")


class TestPopularity:
    async def test_adds_up__over_the_fleet(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        one.used({X: 3, digest(1): 1})
        two.used({X: 4})
        await one._uses._flush()
        await two._uses._flush()
        found = await two.popularity([X, digest(1), digest(2)])
        assert found.keys() == {X, digest(1)}
        assert found[X] == pytest.approx(7, rel=0.01)
        assert found[digest(1)] == pytest.approx(1, rel=0.01)


class TestRelease:
    async def test_keeps__the_least_copies(self, fleet: Fleet) -> None:
        members = [await fleet.member(f"member-{number}") for number in range(3)]
        for each in members:
            await each.yield_up(X, is_held=True)
        first = (await members[0].release([Wish(X, 1, 2)]))[X]
        assert (first.may_go, first.copies) == (True, 2)
        assert first.keeper is not None
        assert first.keeper.identity in {each.identity for each in members[1:]}
        named = first.keeper.identity
        keeper, other = sorted(members[1:], key=lambda each: each.identity != named)
        assert (await other.release([Wish(X, 1, 2)]))[X] == Leave(may_go=False, copies=1)
        assert (await keeper.release([Wish(X, 1, 1)]))[X] == Leave(may_go=False, copies=1)
        assert (await other.release([Wish(X, 1, 1)]))[X].keeper == other.siblings[keeper.identity]
        assert (await keeper.release([Wish(X, 1, 1)]))[X] == Leave(may_go=False, copies=0)

    async def test_names__a_keeper_near_by__of_these_who_has_the_most_room(self, fleet: Fleet) -> None:
        one = await fleet.member("one", "eu")
        room = {"poor": ("eu", 10), "rich": ("eu", 1000), "richer far away": ("us", 100_000)}
        others = {name: await fleet.member(name, region) for name, (region, _) in room.items()}
        for name, other in others.items():
            other.describe(room[name][1], 0)
        await eventually(lambda: all(each.room for each in one.siblings.values()), "all are heard of")
        for each in (one, *others.values()):
            await each.yield_up(X, is_held=True)
        keeper = (await one.release([Wish(X, 1, 1)]))[X].keeper
        assert keeper is not None
        assert keeper.label == "rich"

    async def test_names__one_keeper_only__for_as_long_as_others_ask_to_go(
        self, fleet: Fleet, shared_valkey: Valkey
    ) -> None:
        members = [await fleet.member(f"member-{number}") for number in range(4)]
        for each in members:
            await each.yield_up(X, is_held=True)
        named = (await members[0].release([Wish(X, 1, 1)]))[X].keeper
        assert named is not None
        (key,) = shared_valkey.ask("KEYS", "*:k:*")
        assert 50_000 < shared_valkey.ask("PTTL", key) <= 60_000
        keeper = next(each for each in members if each.identity == named.identity)
        # Whoever asks next would name another, who has more room by now.
        asks, richer = (each for each in members[1:] if each is not keeper)
        richer.describe(10**9, 0)
        await eventually(lambda: asks.siblings[richer.identity].room, "it is heard of")
        assert (await asks.release([Wish(X, 1, 1)]))[X].keeper == asks.siblings[keeper.identity]
        assert not (await keeper.release([Wish(X, 1, 1)]))[X].may_go
        keeper.lost(X)
        await eventually(lambda: not keeper._copies._pending, "that was sent")
        await members[0].yield_up(X, is_held=True)
        assert (await members[0].release([Wish(X, 1, 1)]))[X].keeper == members[0].siblings[richer.identity]

    async def test_lets_the_last_one_go__if_none_has_to_stay(self, fleet: Fleet) -> None:
        one = await fleet.member("one")
        await one.yield_up(X, is_held=True)
        assert not (await one.release([Wish(X, 1, 1)]))[X].may_go
        assert (await one.release([Wish(X, 1, 0)]))[X] == Leave(may_go=True, copies=0)

    async def test_does_not_count__the_dead(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        for each in (one, two):
            await each.yield_up(X, is_held=True)
        fleet.abandon(two, long_ago=True)
        await eventually(lambda: not one.siblings, "it is forgotten")
        assert not (await one.release([Wish(X, 1, 1)]))[X].may_go
        await fleet.member("again", store="two")
        assert (await one.release([Wish(X, 1, 1)]))[X].may_go

    async def test_keeps__what_was_promised(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        for each in (one, two):
            await each.yield_up(X, is_held=True)
        await one.hold([X], 0.3)
        assert not (await one.release([Wish(X, 1, 0)]))[X].may_go
        await asyncio.sleep(0.35)
        assert (await one.release([Wish(X, 1, 0)]))[X].may_go

    async def test_forgets__what_it_promised_for_a_while(self, fleet: Fleet) -> None:
        one = await fleet.member("one")
        await one.hold([digest(number) for number in range(10)], 0)
        assert not any(one._copies.is_promised(X) for _ in range(2))
        assert not one._copies._promised

    async def test_keeps__what_was_promised_as_it_asked(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        for each in (one, two):
            await each.yield_up(X, is_held=True)
        asking = asyncio.create_task(one.release([Wish(X, 1, 1)]))
        await asyncio.sleep(0)
        await one.hold([X], 60)
        assert (await asking)[X] == Leave(may_go=False, copies=1)
        await eventually(lambda: not one._copies._pending, "it is told that it stays")
        assert await two.copies([X]) == {X: 1}

    async def test_keeps__what_only_somebody_unknown_would_keep(self, fleet: Fleet, shared_valkey: Valkey) -> None:
        one = await fleet.member("one")
        await one.yield_up(X, is_held=True)
        (holders,) = shared_valkey.ask("KEYS", "*:h:*")
        shared_valkey.ask("ZADD", f"{ROOT}live", int(time.time() * 1000), "99")
        shared_valkey.ask("SADD", holders, "99")
        assert not (await one.release([Wish(X, 1, 1)]))[X].may_go
        await eventually(lambda: not one._copies._pending, "it is told that it stays")
        assert shared_valkey.ask("SISMEMBER", holders, one._fleet.seat)

    async def test_lets_exactly_two_of_three_go(self, fleet: Fleet) -> None:
        """Whoever comes first of the three: the last copy stays, and no other."""
        members = [await fleet.member(f"member-{number}") for number in range(3)]

        async def race(one: Digest) -> int:
            await asyncio.gather(*(each.yield_up(one, is_held=True) for each in members))
            leaves = await asyncio.gather(*(each.release([Wish(one, 1, 1)]) for each in members))
            return sum(leave[one].may_go for leave in leaves)

        for start in range(0, 1000, 20):
            rounds = await asyncio.gather(*(race(digest(number)) for number in range(start, start + 20)))
            assert rounds == [2] * 20


class TestMessages:
    async def test_reach__whom_they_are_for(self, fleet: Fleet) -> None:
        one, two, three = [await fleet.member(f"member-{number}") for number in range(3)]
        heard: list[Message] = []
        two.on_message("offer", heard.append)
        three.on_message("offer", heard.append)
        two.on_message("other", heard.append)
        assert await one.send(two.identity, "offer", b"\xff")
        await eventually(lambda: heard, "it is heard")
        assert heard == [Message(one.identity, "offer", b"\xff")]
        assert not await one.send("nobody", "offer", b"")


class TestOrders:
    async def test_reach_all__in_order(self, fleet: Fleet) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        rung: list[int] = []
        two.on_order(lambda: rung.append(1))
        given = [await each.order("pin", f"docker.io/library/x:{number}") for number, each in enumerate((one, two) * 5)]
        await eventually(lambda: rung, "it is heard")
        numbers = [each.number for each in given if each]
        assert numbers == sorted(set(numbers))
        assert await two.orders(0) == given
        assert await one.orders(numbers[4]) == given[5:]
        late = await fleet.member("late")
        assert await late.orders(0) == given

    async def test_are_restored__under_their_numbers(self, fleet: Fleet, shared_valkey: Valkey) -> None:
        one, two = await fleet.member("one"), await fleet.member("two")
        given = [each for number in range(3) if (each := await one.order("purge", str(number)))]
        forgotten: list[int] = []
        two.on_amnesia(lambda: forgotten.append(1))
        shared_valkey.ask("FLUSHALL")
        await eventually(lambda: forgotten, "it is noticed")
        await asyncio.gather(one.restore(given), two.restore(given[1:]))
        assert await two.orders(0) == given
        new = await two.order("pin", "x")
        assert new is not None
        assert new.number > given[-1].number

    async def test_are_read__by_the_thousand(self, fleet: Fleet) -> None:
        one = await fleet.member("one")
        assert isinstance(one, RedisCoordinator)
        for start in range(0, 1100, 100):
            await asyncio.gather(*(one.order("pin", str(number)) for number in range(start, start + 100)))
        found = await one.orders(0)
        assert found is not None
        assert {each.what for each in found} == {str(number) for number in range(1100)}


async def test_serves_a_thousand_callers__at_once(fleet: Fleet) -> None:
    one = await fleet.member("one")
    claims = await asyncio.gather(*(one.claim(digest(number)) for number in range(1000)))
    assert one.is_up
    assert len(claims) == 1000


async def test_leaves_nothing_behind__without_an_end(fleet: Fleet, shared_valkey: Valkey) -> None:
    one, two = await fleet.member("one"), await fleet.member("two")
    await one.claim(X)
    await two.yield_up(digest(1), is_held=True)
    turn = await one.consult("topic", 0, 1)
    await two.consult("topic", 0, 0)
    assert isinstance(turn, Turn)
    await one.post(Turn("other"), b"x", 1.0, 60)
    one.share(Fact("quota", "k", b"x", one.time, one.time + 60))
    one.used({X: 1})
    await one._uses._flush()
    await one._facts._flush()
    await one.order("pin", "x")
    await one._fleet.refresh()
    for key in shared_valkey.ask("KEYS", "*"):
        assert key.startswith(b"{layover}:1:")
        assert shared_valkey.ask("PTTL", key) > 0, key
