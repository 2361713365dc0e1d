"""Where a blob comes from, and whose lease is taken, as siblings fail: by a real Redis, and siblings that none asks."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from mirror import fill
from mirror.fill import lead
from mirror.fill import supply as supplies
from mirror.fill.lender import Lender, SourceLost
from mirror.fleet import Coordinator, Filler
from mirror.observe.metrics import HubMetrics, new_registry
from mirror.oci.digest import Digest
from mirror.source import BlobSource
from mirror.source.sibling import Siblings
from tests.fleet.members import Fleet, digest, eventually

X, Y = digest(1), digest(2)
SIZE = 8 * 2**20


class Asking:
    """A replica that wants a blob; `left_alone` are siblings that failed lately."""

    def __init__(self, coordinator: Coordinator, *left_alone: Coordinator, may_lead: bool = True) -> None:
        self.coordinator = coordinator
        siblings = Siblings(coordinator, lambda: "a secret", HubMetrics(new_registry()))
        for each in left_alone:
            siblings.failed(each.identity)
        # Any source will do that is not asked.
        self.upstream = siblings.blobs(next(iter(coordinator.siblings.values())))
        self.fleet = fill.Fleet(coordinator, fill.Leads(), siblings)
        self.supply = fill.Supply(self.fleet, self.upstream, X, may_lead=may_lead)

    async def chosen(self, there: int = 0) -> str:
        """Return the identity of the sibling that is chosen, empty for the upstream; so much is `there` already."""
        source = await self.supply.choose(there, SIZE)
        return source.sibling.identity if isinstance(source, Lender) else ""

    def lose(self) -> None:
        """Let the sibling that was chosen fail for good."""
        lender = self.supply.current
        assert isinstance(lender, Lender)
        assert isinstance(lender.lost("it failed", is_final=True), SourceLost)


async def leading(coordinator: Coordinator, what: Digest = X) -> Filler | None:
    """Return who fills a blob for the fleet, as its region is told."""
    claim = await coordinator.claim(what)
    return claim.leading


async def test_choose__the_filler_of_the_region__though_it_is_left_alone(fleet: Fleet) -> None:
    one, two = await fleet.member("one", "eu"), await fleet.member("two", "eu")
    first = (await one.claim(X)).regional
    assert await Asking(two, one).chosen() == one.identity
    assert (await one.claim(X)).regional == first


async def test_choose__takes_over__from_a_filler_elsewhere_that_is_left_alone(fleet: Fleet) -> None:
    one, two = await fleet.member("one", "eu"), await fleet.member("two", "us")
    await one.claim(X)
    assert await Asking(two, one).chosen() == ""
    taken = await leading(one)
    assert taken is not None
    assert taken.identity == two.identity


async def test_choose__takes_over__from_a_filler_that_failed(fleet: Fleet) -> None:
    one, two = await fleet.member("one", "eu"), await fleet.member("two", "eu")
    before = (await one.claim(X)).regional
    asking = Asking(two)
    assert await asking.chosen() == one.identity
    chains = [asking.supply.chain]
    asking.lose()
    assert await asking.chosen() == ""
    assert [*chains, asking.supply.chain] == [(one.identity,), ()]
    claim = await two.claim(X)
    assert claim.regional == claim.leading
    assert claim.regional is not None
    assert before is not None
    assert claim.regional.identity == two.identity
    assert claim.regional.fence > before.fence


async def test_choose__who_lacks_less_takes_over(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = [await fleet.member(name, "eu") for name in ("one", "two", "three")]
    await one.claim(X)
    monkeypatch.setattr(supplies, "_LACKING_SECONDS", 0.2)
    poor, rich = Asking(two), Asking(three)
    for asking in (poor, rich):
        assert await asking.chosen() == one.identity
        asking.lose()
    began = time.monotonic()
    assert await rich.chosen(SIZE) == ""
    assert await poor.chosen() == three.identity
    assert time.monotonic() < began + 10


async def test_choose__waits_for_who_may_have_more(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supplies, "_LACKING_SECONDS", 8.0)
    monkeypatch.setattr(supplies, "_FARTHER_SECONDS", 4.0)
    near, far = await fleet.member("near", "eu"), await fleet.member("far", "us")
    filler = await near.claim(X)
    assert filler.leading is not None
    assert Asking(far).supply._hesitation(filler.leading, 0.5) == 4.0
    await fleet.member("nearer", "eu")
    assert Asking(far).supply._hesitation(filler.leading, 0.5) == 8.0
    assert Asking(near).supply._hesitation(filler.leading, 0.0) == 0.0


async def test_choose__the_upstream__after_three_siblings_failed(fleet: Fleet) -> None:
    members = [await fleet.member(f"member-{number}", "eu") for number in range(5)]
    for each in members[:4]:
        await each.yield_up(X, is_held=True, size=1)
    asking = Asking(members[4])
    for _ in range(3):
        assert await asking.chosen() in {each.identity for each in members[:4]}
        asking.lose()
    assert await asking.chosen() == ""


async def test_choose__takes_no_lease__where_nobody_could_follow(fleet: Fleet) -> None:
    one, two = await fleet.member("one", "eu"), await fleet.member("two", "eu")
    assert await Asking(two, may_lead=False).chosen() == ""
    claim = await one.claim(X)
    assert claim.regional is not None
    assert claim.regional.identity == one.identity


async def test_expel__none_of_those_again__whose_bytes_were_wrong(fleet: Fleet) -> None:
    one, two = await fleet.member("one", "eu"), await fleet.member("two", "eu")
    await one.claim(X)
    asking = Asking(two)
    assert await asking.chosen() == one.identity
    source = asking.supply.current
    assert isinstance(source, Lender)
    source.took()
    assert asking.supply.lenders == {one.identity}
    asking.supply.expel()
    assert await asking.chosen() == ""
    assert asking.supply.lenders == set()


async def test_end__gives_the_leases_up(fleet: Fleet) -> None:
    one, two = await fleet.member("one", "eu"), await fleet.member("two", "eu")
    asking = Asking(one)
    assert await asking.chosen() == ""
    await asking.supply.end(None)
    taken = (await two.claim(X)).regional
    assert taken is not None
    assert taken.identity == two.identity


class FarAhead(Asking):
    """One that leads with as much as it may be ahead with, holds it, and wants one more."""

    async def choosing(self) -> asyncio.Task[BlobSource]:
        """Return the choice of a source for that one, under way."""
        assert await self.chosen() == ""
        await self.supply.end(SIZE)
        return asyncio.create_task(fill.Supply(self.fleet, self.upstream, Y).choose(0, SIZE))

    async def has_looked(self) -> None:
        """Wait until it has looked whether others lead with it."""
        await eventually(lambda: self.fleet.leads._held_at > 0, "it looked")


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have siblings waited for as long as it takes."""
    for name in ("_MEETING_SECONDS", "_HELD_SECONDS"):
        monkeypatch.setattr(lead, name, math.inf)


@pytest.mark.usefixtures("patience")
async def test_choose__who_is_far_ahead__leaves_the_next_to_others(fleet: Fleet) -> None:
    one, two = await fleet.member("one", "eu"), await fleet.member("two", "eu")
    ahead = FarAhead(one)
    choosing = await ahead.choosing()
    await ahead.has_looked()
    taken = (await two.claim(Y)).leading
    assert taken is not None
    assert taken.identity == two.identity
    source = await asyncio.wait_for(choosing, 30)
    assert isinstance(source, Lender)
    assert source.sibling.identity == two.identity


@pytest.mark.usefixtures("patience")
async def test_choose__who_was_far_ahead__leads_again_once_a_sibling_has_a_copy(fleet: Fleet) -> None:
    one, two = await fleet.member("one", "eu"), await fleet.member("two", "us")
    ahead = FarAhead(one)
    choosing = await ahead.choosing()
    await ahead.has_looked()
    await two.yield_up(X, is_held=True, size=SIZE)
    assert await asyncio.wait_for(choosing, 30) is ahead.upstream
    taken = await leading(one, Y)
    assert taken is not None
    assert taken.identity == one.identity


async def test_choose__who_is_far_ahead__waits_no_longer_than_others_may_come(fleet: Fleet) -> None:
    one, _ = await fleet.member("one", "eu"), await fleet.member("two", "eu")
    ahead = FarAhead(one)
    assert await asyncio.wait_for(await ahead.choosing(), 30) is ahead.upstream


@pytest.mark.usefixtures("patience")
async def test_bound__none__without_siblings(fleet: Fleet) -> None:
    one = await fleet.member("one", "eu")
    two = await fleet.member("two", "eu")
    asking = Asking(one)
    await two.close()
    await eventually(lambda: not one.siblings, "it is alone")
    assert await asking.chosen() == ""
    assert asking.supply.bound(SIZE, 0) is None
