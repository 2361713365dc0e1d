"""Questions that are asked once by several replicas: who asks, who is told, and what nobody is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from mirror.config import Upstream
from mirror.fleet import Posted
from mirror.hub.answers import Answers, Judged, Kept, Pointed, Refused
from mirror.hub.patience import Patience
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository, Tag
from mirror.source.upstream import Scopes
from tests.fleet.commons import Commons, Member

UPSTREAM = Upstream("registry.test", "registry.test", "https://registry.test")
APP = Repository("registry.test", "team/app")
LATEST = Tag("latest")
DIGEST = Digest.of(b"a manifest")
POINTED = Pointed(DIGEST, "a")
SECRET = "of the whole fleet"


class Teller:
    """One replica, and as whom it asks."""

    def __init__(self, commons: Commons, name: str, identity: str = "", ahead: float = 0.0) -> None:
        self.identity = identity
        self.asked = 0
        self.answers = Answers(Member(commons, name), Scopes(lambda: SECRET), self._identity)

    async def _identity(self, _: Upstream) -> str:
        return self.identity

    async def ask(self, answer: Pointed = POINTED, *, since: float = -1e9, upstream: Upstream = UPSTREAM) -> object:
        """Return what is told; ask the upstream, which answers at once, if nothing is."""
        async with self.answers.ask(Pointed, upstream, APP, LATEST, since=since) as question:
            if question.told is None:
                self.asked += 1
                question.answered(answer)
            return question.told

    async def said(self) -> None:
        """Wait until all is said."""
        await self.answers.close()


@pytest.fixture
def commons() -> Commons:
    return Commons()


@pytest.fixture
async def one(commons: Commons) -> AsyncIterator[Teller]:
    made = Teller(commons, "one")
    yield made
    await made.said()


@pytest.fixture
async def other(commons: Commons) -> AsyncIterator[Teller]:
    made = Teller(commons, "other")
    yield made
    await made.said()


async def test_tells__what_another_was_answered(one: Teller, other: Teller) -> None:
    assert await one.ask() is None
    await one.said()
    assert await other.ask() == POINTED
    assert (one.asked, other.asked) == (1, 0)


async def test_asks_again__what_is_older_than_it_may_be(one: Teller, other: Teller) -> None:
    await one.ask()
    await one.said()
    assert await other.ask(since=time.time()) is None
    assert other.asked == 1


async def test_waits__while_another_asks(one: Teller, other: Teller) -> None:
    async with one.answers.ask(Pointed, UPSTREAM, APP, LATEST) as question:
        waiting = asyncio.create_task(other.ask())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        question.answered(POINTED)
    assert await waiting == POINTED


async def test_has_the_next_ask__where_the_first_failed(one: Teller, other: Teller) -> None:
    asking = asyncio.Event()

    async def fail() -> None:
        async with one.answers.ask(Pointed, UPSTREAM, APP, LATEST):
            asking.set()
            await asyncio.sleep(0.05)
            raise RegistryError(ErrorCode.UNAVAILABLE, "it is down", failure=Failure.REFUSED)

    failing = asyncio.create_task(fail())
    await asking.wait()
    assert await other.ask() is None
    with pytest.raises(RegistryError):
        await failing
    assert other.asked == 1


async def test_has_the_next_ask__where_the_first_is_cancelled(one: Teller, other: Teller) -> None:
    async def hang() -> None:
        async with one.answers.ask(Pointed, UPSTREAM, APP, LATEST):
            await asyncio.Event().wait()

    hanging = asyncio.create_task(hang())
    await asyncio.sleep(0.01)
    waiting = asyncio.create_task(other.ask())
    await asyncio.sleep(0.01)
    hanging.cancel()
    assert await waiting is None
    assert other.asked == 1


async def test_says__that_it_is_another_who_waits(one: Teller, other: Teller) -> None:
    patience = Patience(0.1)
    async with one.answers.ask(Pointed, UPSTREAM, APP, LATEST):
        asking = asyncio.ensure_future(_with(other, patience))
        assert not await patience.outlasts(asyncio.ensure_future(asyncio.Event().wait()))
        assert patience.is_of_another
    assert await asking is None
    assert not patience.is_of_another


async def _with(teller: Teller, patience: Patience) -> object:
    async with teller.answers.ask(Pointed, UPSTREAM, APP, LATEST, patience=patience) as question:
        return question.told


@pytest.mark.parametrize(
    "upstream",
    [
        UPSTREAM._replace(url="https://elsewhere.test"),
        UPSTREAM._replace(endpoints=("https://mirror.test",)),
    ],
)
async def test_tells_nothing__to_who_asks_elsewhere(one: Teller, other: Teller, upstream: Upstream) -> None:
    await one.ask()
    await one.said()
    assert await other.ask(upstream=upstream) is None


async def test_tells_nothing__to_who_has_other_credentials(commons: Commons, one: Teller) -> None:
    async with one.answers.ask(Pointed, UPSTREAM, APP, LATEST) as question:
        question.failed(RegistryError(ErrorCode.MANIFEST_UNKNOWN, "it is not there"), 60)
    await one.said()
    robot = Teller(commons, "robot", "5a1f00c0ffee")
    assert await robot.ask() is None
    await robot.said()
    nobody = Teller(commons, "nobody")
    assert await nobody.ask() == Refused(ErrorCode.MANIFEST_UNKNOWN)


async def test_tells_nothing__where_credentials_changed_meanwhile(one: Teller, other: Teller) -> None:
    async with one.answers.ask(Pointed, UPSTREAM, APP, LATEST) as question:
        one.identity = "5a1f00c0ffee"
        question.answered(POINTED)
    await one.said()
    assert await other.ask() is None


async def test_says__no_credential_and_no_secret(commons: Commons) -> None:
    robot = Teller(commons, "robot", "5a1f00c0ffee")
    await robot.ask()
    await robot.said()
    for topic, posted in commons.posted.items():
        for secret in ("5a1f00c0ffee", SECRET, "registry.test"):
            assert secret not in topic
            assert secret.encode() not in posted.value
    own = Scopes(lambda: SECRET).of("5a1f00c0ffee", "https://registry.test")
    assert own != Scopes(lambda: "another").of("5a1f00c0ffee", "https://registry.test")


@pytest.mark.parametrize(
    ("error", "is_shared"),
    [
        (RegistryError(ErrorCode.MANIFEST_UNKNOWN, "no"), True),
        (RegistryError(ErrorCode.NAME_UNKNOWN, "no"), True),
        (RegistryError(ErrorCode.DENIED, "no", failure=Failure.CREDENTIALS), True),
        (RegistryError(ErrorCode.TOOMANYREQUESTS, "no", failure=Failure.TOO_MANY), False),
        (RegistryError(ErrorCode.UNAVAILABLE, "no", failure=Failure.SERVER), False),
    ],
)
async def test_shares__refusals_and_no_failure(
    commons: Commons, one: Teller, error: RegistryError, is_shared: bool
) -> None:
    async with one.answers.ask(Pointed, UPSTREAM, APP, LATEST) as question:
        question.failed(error, 5)
    await one.said()
    assert bool(commons.posted) is is_shared
    assert set(commons.seconds.values()) <= {5}


async def test_shares_nothing__for_no_time(commons: Commons, one: Teller) -> None:
    async with one.answers.ask(Pointed, UPSTREAM, APP, LATEST) as question:
        question.failed(RegistryError(ErrorCode.MANIFEST_UNKNOWN, "no"), 0)
    await one.said()
    assert not commons.posted
    assert not commons.turns


@pytest.mark.parametrize("value", [b"", b"\xff", b"\x93\xa3new\x01\x02", b"\x92\xa3tag\xa3abc"])
async def test_asks_itself__where_the_answer_makes_no_sense(commons: Commons, one: Teller, value: bytes) -> None:
    await one.ask()
    await one.said()
    for topic in commons.posted:
        commons.posted[topic] = Posted(value, time.time())
    assert await one.ask() is None


async def test_believes_nothing__from_before_a_purge(one: Teller, other: Teller) -> None:
    await one.ask()
    await one.said()
    purged_at = time.time()
    other.answers.purged_at = lambda repository, name: purged_at if (repository, name) == (APP, LATEST) else 0.0
    assert await other.ask() is None


async def test_tells_when_it_was_asked__by_the_own_clock(commons: Commons) -> None:
    commons_time = time.time() + 3600
    one = Teller(commons, "one")
    await one.ask()
    await one.said()
    (topic,) = commons.posted
    late = Answers(Member(commons, "late", lambda: commons_time), Scopes(lambda: SECRET), one._identity)
    commons.posted[topic] = Posted(commons.posted[topic].value, commons_time - 10)
    async with late.ask(Pointed, UPSTREAM, APP, LATEST, since=time.time() - 11) as question:
        assert question.told == POINTED
        assert question.at == pytest.approx(time.time() - 10, abs=5)
        assert question.age == pytest.approx(10, abs=5)
    async with late.ask(Pointed, UPSTREAM, APP, LATEST, since=time.time() - 9) as question:
        assert question.told is None


async def test_keeps_kinds_apart(one: Teller) -> None:
    async with one.answers.ask(Kept, UPSTREAM, APP, DIGEST) as kept:
        kept.answered(Kept("one"))
    async with one.answers.ask(Judged, UPSTREAM, APP) as judged:
        judged.answered(Judged(is_private=True), 3600)
    await one.said()
    async with one.answers.ask(Kept, UPSTREAM, APP, DIGEST) as kept:
        assert kept.told == Kept("one")
    async with one.answers.ask(Judged, UPSTREAM, APP) as judged:
        assert judged.told == Judged(is_private=True)


async def test_asks_nobody__alone() -> None:
    async with Answers.unshared().ask(Pointed, UPSTREAM, APP, LATEST) as question:
        assert question.told is None
        question.answered(POINTED)
