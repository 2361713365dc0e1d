"""How long anybody waits to hear what is public, and how often that is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mirror.channel import ManifestFound
from mirror.config import Upstream, Upstreams
from mirror.hub.visibility import Visibility
from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository, Tag
from mirror.source.upstream import AnonymousCaller, Sample
from mirror.store import Link, Store, TagState, Verdict
from tests.store.stock import REPOSITORY, opened

MEMBER = Upstreams({"docker.io": {"username": "robot", "password": "swordfish"}})
BLOB = Digest.of(b"blob")
PATIENCE = 0.5


class Caller(AnonymousCaller):
    """Answers as it is told to, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Callable[[], Awaitable[bool]] = self.never

    async def may_have(self, upstream: Upstream, repository: Repository, sample: Sample, *, is_quick: bool) -> bool:
        self.asked.append(sample.name)
        return await self.answer()

    async def never(self) -> bool:
        await asyncio.Event().wait()
        return True

    async def failing(self) -> bool:
        raise RegistryError(ErrorCode.UNAVAILABLE, "it is down", failure=Failure.SERVER, retry_after=10)

    async def limited(self) -> bool:
        raise RegistryError(ErrorCode.TOOMANYREQUESTS, "too many", failure=Failure.TOO_MANY, retry_after=60)

    async def missing(self) -> bool:
        raise RegistryError(ErrorCode.MANIFEST_UNKNOWN, "it is not there")

    async def public(self) -> bool:
        return True


@pytest.fixture
def upstream() -> Upstream:
    found = MEMBER.lookup("docker.io")
    assert found is not None
    return found


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(tmp_path / "store", MEMBER) as store:
        yield store


@pytest.fixture
def caller() -> Caller:
    return Caller()


@pytest.fixture
async def visibility(store: Store, caller: Caller) -> AsyncIterator[Visibility]:
    made = Visibility(caller, store, PATIENCE)
    yield made
    await made.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return what puts the clock of failures forward."""
    ahead = [0.0]
    later = SimpleNamespace(time=time.time, monotonic=lambda: time.monotonic() + ahead[0])
    monkeypatch.setattr("mirror.hub.visibility.time", later)

    def forward(seconds: float) -> None:
        ahead[0] += seconds

    return forward


async def refused(asking: Awaitable[object]) -> RegistryError:
    with pytest.raises(RegistryError) as error:
        await asking
    return error.value


def hour_old(store: Store, *, is_private: bool) -> None:
    store.judge(REPOSITORY, Verdict(is_private, time.time() - 3600))


async def test_waits_once__for_an_answer_that_does_not_come(
    upstream: Upstream, store: Store, caller: Caller, visibility: Visibility
) -> None:
    hour_old(store, is_private=True)
    began = time.monotonic()
    assert (await refused(visibility.blob(upstream, REPOSITORY, BLOB))).code is ErrorCode.DENIED
    assert time.monotonic() - began >= PATIENCE * 0.9
    # The first question is still open: who joins it late has nothing to wait for.
    waiting = asyncio.create_task(visibility.blob(upstream, REPOSITORY, BLOB))
    done, _ = await asyncio.wait({waiting}, timeout=PATIENCE / 2)
    assert done
    assert isinstance(waiting.exception(), RegistryError)
    assert len(caller.asked) == 1


async def test_asks_on_the_quiet__after_a_failure(
    upstream: Upstream, store: Store, caller: Caller, visibility: Visibility, clock: Callable[[float], None]
) -> None:
    hour_old(store, is_private=False)
    caller.answer = caller.failing
    for _ in range(3):
        await visibility.blob(upstream, REPOSITORY, BLOB)
    assert len(caller.asked) == 1
    clock(4)
    caller.answer = caller.never
    waiting = asyncio.create_task(visibility.blob(upstream, REPOSITORY, BLOB))
    done, _ = await asyncio.wait({waiting}, timeout=PATIENCE / 2)
    assert done
    await waiting
    assert len(caller.asked) == 2


async def test_heeds__how_long_it_is_told_to_wait(
    upstream: Upstream, caller: Caller, visibility: Visibility, clock: Callable[[float], None]
) -> None:
    caller.answer = caller.limited
    for seconds in (0, 30, 20):
        clock(seconds)
        assert (await refused(visibility.blob(upstream, REPOSITORY, BLOB))).status == 429
    assert len(caller.asked) == 1
    clock(20)
    caller.answer = caller.public
    await visibility.blob(upstream, REPOSITORY, BLOB)


async def test_remembers__what_is_missing_by_tag_alone(
    upstream: Upstream, caller: Caller, visibility: Visibility
) -> None:
    caller.answer = caller.missing

    async def find() -> ManifestFound:
        raise RegistryError(ErrorCode.MANIFEST_UNKNOWN, "it is not there")

    for _ in range(3):
        assert (await refused(visibility.manifest(upstream, REPOSITORY, Tag("none"), find))).status == 404
        assert (await refused(visibility.blob(upstream, REPOSITORY, BLOB))).status == 404
    assert caller.asked == ["none", BLOB, BLOB, BLOB]


async def test_asks_for_each__where_another_is_missing(
    upstream: Upstream, caller: Caller, visibility: Visibility
) -> None:
    landing = asyncio.Event()

    async def answer() -> bool:
        await landing.wait()
        return await (caller.missing() if len(caller.asked) == 1 else caller.public())

    caller.answer = answer
    other = Digest.of(b"other")
    both = [asyncio.create_task(visibility.blob(upstream, REPOSITORY, digest)) for digest in (BLOB, other)]
    await asyncio.sleep(0)
    landing.set()
    results = await asyncio.gather(*both, return_exceptions=True)
    assert isinstance(results[0], RegistryError)
    assert results[1] is None
    assert caller.asked == [BLOB, other]


async def test_refuses__what_is_held_while_nobody_can_tell(
    upstream: Upstream, store: Store, caller: Caller, visibility: Visibility
) -> None:
    caller.answer = caller.failing
    assert (await refused(visibility.blob(upstream, REPOSITORY, BLOB))).status == 503
    store.link(REPOSITORY, BLOB, Link(None, True, 1))
    error = await refused(visibility.blob(upstream, REPOSITORY, BLOB))
    assert (error.code, error.failure) == (ErrorCode.DENIED, None)
    assert "was not found to be public" in error.message


async def test_waits_for_an_answer__where_what_was_found_is_new(
    upstream: Upstream, caller: Caller, tmp_path: Path
) -> None:
    """What was had without credentials vouches for itself, not for what they open since."""
    tag, old, new = Tag("1"), Digest.of(b"old"), Digest.of(b"new")
    link = Link("text/plain", False, 1)
    async with opened(tmp_path / "twice") as store:
        store.link(REPOSITORY, old, link)
        store.set_tag(REPOSITORY, tag, TagState(old, "text/plain", 1, 100.0))
    async with opened(tmp_path / "twice", MEMBER) as store:
        visibility = Visibility(caller, store, PATIENCE)
        found = [old, new]

        async def find() -> ManifestFound:
            store.link(REPOSITORY, found[0], link)
            return ManifestFound(found[0], "text/plain", b"x", CacheStatus(Outcome.HIT))

        assert (await visibility.manifest(upstream, REPOSITORY, tag, find)).digest == old
        found.remove(old)
        asking = asyncio.create_task(visibility.manifest(upstream, REPOSITORY, tag, find))
        done, _ = await asyncio.wait({asking}, timeout=3 * PATIENCE)
        assert not done
        asking.cancel()
        await visibility.close()
