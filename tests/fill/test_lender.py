"""A sibling as a source: for how long it is waited for, and when it is asked no more."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from mirror.fill.lender import TAIL, Lender, Loss, SourceLost
from mirror.observe.metrics import HubMetrics, new_registry
from mirror.oci.digest import Digest
from mirror.oci.errors import Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source import BlobStream, Pace
from mirror.source.sibling import SiblingError, Siblings
from tests.source.sibling.member import SECRET, Member, sibling_at

_KIB = 2**10
_SIZE = 4 * TAIL
_APP = Repository("docker.io", "library/app")
_DIGEST = Digest.of(b"a blob")
_SIBLING = sibling_at("http://127.0.0.1:1", "b")


class _Answer:
    """An answer that brings these pieces, each after so many seconds of the test's clock, and then fails if told to."""

    def __init__(self, scene: _Scene, start: int = 0, stop: int | None = None, size: int | None = _SIZE) -> None:
        self.start, self.stop, self.size = start, size if stop is None else stop, size
        self.chain = ("b", "c")
        self.waiting_since: float | None = None
        self.pieces: list[tuple[float, int]] = []
        self.error: RegistryError | None = None
        self.is_silent = False
        self.closed: list[bool] = []
        self._scene = scene

    async def read(self) -> bytes:
        """Return the next piece."""
        if self.pieces:
            seconds, amount = self.pieces.pop(0)
            self._scene.now += seconds
            return bytes(amount)
        if self.error is not None:
            raise self.error
        if self.is_silent:
            await asyncio.Future()
        return b""

    async def close(self, *, is_wrong: bool = False) -> None:
        """Note how it was ended."""
        self.closed.append(is_wrong)


class _Scene:
    """A lender over what the test lets its sibling do, and what became of it."""

    def __init__(self, siblings: Siblings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.lives = True
        self.usual = Pace(1, math.inf, lambda: 1)
        self.losses: list[Loss] = []
        self.took: list[str] = []
        self.answer: _Answer | RegistryError = _Answer(self)
        self._siblings = siblings
        self._monkeypatch = monkeypatch
        # The event loop goes by the real clock.
        monkeypatch.setattr("mirror.fill.lender.time", SimpleNamespace(monotonic=lambda: self.now))

    def lender(self, *, is_filler: bool = True, is_near: bool = True) -> Lender:
        """Return the sibling as one that still fills the blob or has it, near or far."""
        source = self._siblings.blobs(_SIBLING)
        self._monkeypatch.setattr(source, "open", self._open)
        return Lender(
            source,
            self.usual,
            self.took.append,
            self.losses.append,
            lambda: self.lives,
            is_filler=is_filler,
            is_near=is_near,
        )

    @property
    def reasons(self) -> list[tuple[str, bool]]:
        """Why it was given up, and whether it is to blame."""
        return [(loss.reason, loss.is_to_blame) for loss in self.losses]

    async def _open(self, *_: object) -> _Answer:
        if isinstance(self.answer, RegistryError):
            raise self.answer
        return self.answer


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[_Scene]:
    siblings = Siblings(Member("a"), lambda: SECRET, HubMetrics(new_registry()))
    yield _Scene(siblings, monkeypatch)
    await siblings.close()


def failed(failure: Failure | None) -> RegistryError:
    """Return what a sibling fails with; None: it has no such blob."""
    error = SiblingError(_SIBLING, "failed", Failure.RESET)
    error.failure = failure
    return error


async def is_asked_on(scene: _Scene, lender: Lender) -> bool:
    """Ask a lender in vain, and say whether it will be asked again."""
    with pytest.raises(SourceLost, match="sibling b failed"):
        await lender.open(_APP, _DIGEST, 0)
    return not scene.losses


async def drained(stream: BlobStream) -> list[int]:
    """Return how many bytes each piece of a stream has, up to the end."""
    sizes = []
    while piece := await stream.read():
        sizes.append(len(piece))
    return sizes


# Who is silent


async def test_open__a_filler_of_the_region_is_silent__it_is_asked_on_for_12_seconds(scene: _Scene) -> None:
    lender = scene.lender()
    scene.answer = failed(Failure.TIMEOUT)
    assert await is_asked_on(scene, lender)
    scene.now += 6
    assert await is_asked_on(scene, lender)
    scene.now += 5.5
    assert await is_asked_on(scene, lender)
    scene.now += 0.5
    assert not await is_asked_on(scene, lender)


async def test_open__a_filler_answers_meanwhile__it_has_12_seconds_again(scene: _Scene) -> None:
    lender = scene.lender()
    scene.answer = failed(Failure.TIMEOUT)
    assert await is_asked_on(scene, lender)
    scene.answer = _Answer(scene)
    await lender.open(_APP, _DIGEST, 0)
    scene.answer = failed(Failure.TIMEOUT)
    scene.now += 20
    assert await is_asked_on(scene, lender)
    scene.now += 11.5
    assert await is_asked_on(scene, lender)


async def test_open__a_filler_that_does_not_beat_is_silent__it_is_asked_no_more(scene: _Scene) -> None:
    lender = scene.lender()
    scene.answer = failed(Failure.TIMEOUT)
    assert await is_asked_on(scene, lender)
    scene.lives = False
    assert not await is_asked_on(scene, lender)


@pytest.mark.parametrize(("is_filler", "is_near"), [(False, True), (True, False), (False, False)])
async def test_open__another_is_silent__it_is_asked_no_more(scene: _Scene, is_filler: bool, is_near: bool) -> None:
    scene.answer = failed(Failure.TIMEOUT)
    assert not await is_asked_on(scene, scene.lender(is_filler=is_filler, is_near=is_near))


@pytest.mark.parametrize("failure", [Failure.RESET, Failure.SERVER])
async def test_open__one_of_the_region_fails__it_is_asked_once_more(scene: _Scene, failure: Failure) -> None:
    lender = scene.lender(is_filler=False)
    scene.answer = failed(failure)
    assert await is_asked_on(scene, lender)
    assert not await is_asked_on(scene, lender)
    assert [is_to_blame for _, is_to_blame in scene.reasons] == [False]


async def test_open__one_elsewhere_fails__it_is_asked_no_more(scene: _Scene) -> None:
    scene.answer = failed(Failure.RESET)
    assert not await is_asked_on(scene, scene.lender(is_filler=False, is_near=False))


async def test_open__it_has_no_such_blob__it_is_asked_no_more(scene: _Scene) -> None:
    scene.answer = failed(None)
    assert not await is_asked_on(scene, scene.lender())


@pytest.mark.parametrize(
    ("is_filler", "is_near", "position", "seconds"),
    [
        (False, True, 0, 4),
        (False, True, _SIZE - TAIL, 4),
        (True, True, 0, 12),
        (True, True, _SIZE - TAIL - 1, 12),
        (True, True, _SIZE - TAIL, 15),
        (True, False, 0, 8),
        (True, False, _SIZE - TAIL, 15),
    ],
)
async def test_read__is_waited_for__as_long_as_its_own_source_may_take(
    scene: _Scene, is_filler: bool, is_near: bool, position: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    real = asyncio.timeout

    def timeout(delay: float) -> asyncio.Timeout:
        waited.append(delay)
        return real(0)

    answer = scene.answer = _Answer(scene, position)
    answer.is_silent = True
    stream = await scene.lender(is_filler=is_filler, is_near=is_near).open(_APP, _DIGEST, position)
    monkeypatch.setattr("mirror.fill.lender.asyncio", SimpleNamespace(timeout=timeout))
    with pytest.raises(SourceLost, match="it is silent"):
        await stream.read()
    assert waited == [seconds]
    assert scene.reasons == [("it is silent", True)]


# What it answers


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ((0, None), (0, None, None)),
        ((0, None), (0, None, _SIZE)),
        ((5, 10), (5, 10, _SIZE)),
        ((5, 2 * _SIZE), (5, _SIZE, _SIZE)),
        ((5, 10), (5, None, None)),
    ],
    ids=["size unknown", "all", "a range", "a range beyond the end", "a range, size unknown"],
)
async def test_open__the_range_that_was_asked_for(
    scene: _Scene, asked: tuple[int, int | None], answered: tuple[int, int | None, int | None]
) -> None:
    answer = scene.answer = _Answer(scene, *answered)
    lender = scene.lender()
    stream = await lender.open(_APP, _DIGEST, *asked)
    assert (stream.start, stream.stop, stream.size) == (answer.start, answer.stop, answer.size)
    assert lender.chain == ("b", "c")
    answer.waiting_since = 7.0
    assert stream.waiting_since == 7.0, "else nobody sees that it stands still"
    await stream.close()
    assert answer.closed == [False]


@pytest.mark.parametrize(
    ("asked", "answered"),
    [((5, None), (0, None, _SIZE)), ((0, 10), (0, 20, _SIZE)), ((0, 10), (0, None, _SIZE))],
    ids=["from the start", "another end", "all"],
)
async def test_open__another_range__it_is_to_blame(
    scene: _Scene, asked: tuple[int, int | None], answered: tuple[int, int | None, int | None]
) -> None:
    answer = scene.answer = _Answer(scene, *answered)
    lender = scene.lender()
    with pytest.raises(SourceLost, match="another range"):
        await lender.open(_APP, _DIGEST, *asked)
    assert answer.closed == [True]
    assert scene.reasons == [("it answered with another range", True)]
    assert lender.chain == ("b",), "nothing of it is believed"


async def test_read__all_that_was_asked_for__who_brought_it_is_told(scene: _Scene) -> None:
    answer = scene.answer = _Answer(scene, 0, 100)
    answer.pieces = [(0.0, 60), (0.0, 40)]
    stream = await scene.lender().open(_APP, _DIGEST, 0, 100)
    assert await drained(stream) == [60, 40]
    assert scene.took == ["b", "b"]
    assert scene.losses == []


@pytest.mark.parametrize("amount", [99, 101], ids=["too little", "too much"])
async def test_read__other_than_was_asked_for__it_is_asked_once_more(scene: _Scene, amount: int) -> None:
    lender = scene.lender()
    for _ in range(2):
        assert scene.losses == []
        answer = scene.answer = _Answer(scene, 50, 150)
        answer.pieces = [(0.0, amount - 50), (0.0, 50)]
        stream = await lender.open(_APP, _DIGEST, 50, 150)
        with pytest.raises(SourceLost, match=f"sent {amount} bytes for 100"):
            await drained(stream)
    assert len(scene.losses) == 1


async def test_read__of_unknown_size__up_to_its_end(scene: _Scene) -> None:
    answer = scene.answer = _Answer(scene, 0, None, None)
    answer.pieces = [(0.0, 60), (0.0, 40)]
    assert await drained(await scene.lender().open(_APP, _DIGEST, 0)) == [60, 40]
    assert scene.losses == []


async def test_pace__of_a_filler__one_connection_and_another_for_who_waits_ahead(scene: _Scene) -> None:
    own, shared = scene.lender().pace, scene.lender(is_filler=False).pace
    assert shared is scene.lender(is_filler=False).pace is not own
    own.opened()
    own.began(scene.now)
    own.brought(2**20, scene.now + 1)
    assert not own.may_add(1)
    assert own.may_hurry
    own.opened()
    own.opened()
    assert not own.may_hurry


async def test_read__it_breaks_behind_the_last_byte__nothing_is_lacking(scene: _Scene) -> None:
    answer = scene.answer = _Answer(scene, 0, 100)
    answer.pieces, answer.error = [(0.0, 100)], failed(Failure.RESET)
    stream = await scene.lender(is_near=False).open(_APP, _DIGEST, 0, 100)
    assert await drained(stream) == [100]
    assert scene.losses == []


async def test_read__it_breaks_before__it_is_lost(scene: _Scene) -> None:
    answer = scene.answer = _Answer(scene, 0, 100)
    answer.pieces, answer.error = [(0.0, 99)], failed(Failure.RESET)
    stream = await scene.lender(is_near=False).open(_APP, _DIGEST, 0, 100)
    await stream.read()
    with pytest.raises(SourceLost):
        await stream.read()
    assert len(scene.losses) == 1


# What it brings


@pytest.mark.parametrize(
    ("is_filler", "usual", "least"),
    [
        (True, 10**9, 128),
        (False, 0.0, 16 * _KIB),
        (False, 512 * _KIB, 64 * _KIB),
        (False, 10**9, 256 * _KIB),
    ],
    ids=["a filler", "unknown", "an eighth", "quick"],
)
async def test_read__next_to_nothing__it_is_to_blame(scene: _Scene, is_filler: bool, usual: float, least: int) -> None:
    scene.usual.rate = usual
    enough, too_little = (_Answer(scene, 0, None, 10**9) for _ in range(2))
    enough.pieces, too_little.pieces = [(4.0, 4 * least)] * 2, [(4.0, 4 * least - 1)] * 2
    lender = scene.lender(is_filler=is_filler)
    scene.answer = enough
    stream = await lender.open(_APP, _DIGEST, 0)
    for _ in range(2):
        assert await stream.read()
    scene.answer = too_little
    stream = await lender.open(_APP, _DIGEST, 0)
    assert await stream.read()
    assert scene.losses == []
    with pytest.raises(SourceLost, match="next to nothing"):
        await stream.read()
    assert scene.reasons == [("it sends next to nothing", True)]


async def test_read__quick_before__counts_no_more_after_8_seconds(scene: _Scene) -> None:
    answer = scene.answer = _Answer(scene, 0, None, 10**9)
    answer.pieces = [(8.0, 10**6), (7.5, 1), (0.5, 1)]
    stream = await scene.lender().open(_APP, _DIGEST, 0)
    for _ in range(2):
        await stream.read()
    with pytest.raises(SourceLost, match="next to nothing"):
        await stream.read()


async def test_read__time_that_nobody_waited_for_it__does_not_count(scene: _Scene) -> None:
    answer = scene.answer = _Answer(scene, 0, None, 10**9)
    answer.pieces = [(1.0, 1)] * 7
    stream = await scene.lender().open(_APP, _DIGEST, 0)
    for _ in range(7):
        await stream.read()
        scene.now += 60
    assert scene.losses == []
