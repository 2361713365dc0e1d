"""Sources one after the other: what they have to agree on, and which answers are taken all the same."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from mirror.fill.lender import SourceLost
from mirror.fill.sources import Sources, WrongSize
from mirror.oci.digest import Digest
from mirror.oci.errors import Failure, RegistryError
from mirror.source import BlobStream, RangeMistaken, RangeRefused
from mirror.source.upstream.blobs import UpstreamBlob
from tests.fill.origin import Origin, opened
from tests.upstream import Upstream

_SIZE = 300_000


@pytest.fixture
async def origin(registry: Upstream) -> AsyncIterator[Origin]:
    async with opened(registry) as found:
        yield found


@pytest.fixture
def digest(origin: Origin) -> Digest:
    return origin.push(_SIZE)


async def sources_of(origin: Origin, digest: Digest, size: int | None = None) -> Sources:
    """Return sources of a blob, of which the first is chosen."""
    sources = Sources(origin.supply(digest), origin.repository, digest, size, origin.metrics)
    await sources.choose()
    return sources


async def read(stream: BlobStream) -> bytes:
    """Return all of a stream, and close it."""
    pieces = []
    while piece := await stream.read():
        pieces.append(piece)
    await stream.close()
    return b"".join(pieces)


async def test_open__a_range__the_first_source_tells_the_size(origin: Origin, digest: Digest) -> None:
    sources = await sources_of(origin, digest)
    assert (sources.size, sources.was_opened) == (None, False)
    assert await read(await sources.open(5, 10)) == origin.upstream.content(digest)[5:10]
    assert (sources.size, sources.was_opened) == (_SIZE, True)


@pytest.mark.parametrize("ranges", ["wrong", "refused"])
async def test_open__the_first_range_is_answered_wrongly__all_is_asked_for(
    origin: Origin, digest: Digest, ranges: str
) -> None:
    origin.upstream.dials.blob_ranges = ranges  # type: ignore[assignment]
    sources = await sources_of(origin, digest, _SIZE)
    stream = await sources.open(0, 1000)
    assert (stream.start, stream.stop) == (0, _SIZE)
    assert await read(stream) == origin.upstream.content(digest)


@pytest.mark.parametrize(("ranges", "error"), [("wrong", RangeMistaken), ("refused", RangeRefused)])
async def test_open__a_later_range_is_answered_wrongly__is_an_error(
    origin: Origin, digest: Digest, ranges: str, error: type[RegistryError]
) -> None:
    origin.upstream.dials.blob_ranges = ranges  # type: ignore[assignment]
    sources = await sources_of(origin, digest, _SIZE)
    for start, stop in ((1, 1000), (1, None)):
        with pytest.raises(error):
            await sources.open(start, stop)
    assert not sources.was_opened


@pytest.mark.parametrize(("stop", "requests"), [(None, 1), (1000, 2)], ids=["all", "a range, then all"])
async def test_open__of_another_size__is_an_error(
    origin: Origin, digest: Digest, stop: int | None, requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    close = UpstreamBlob.close

    async def noted(self: UpstreamBlob, *, is_wrong: bool = False) -> None:
        closed.append(is_wrong)
        await close(self, is_wrong=is_wrong)

    monkeypatch.setattr(UpstreamBlob, "close", noted)
    sources = await sources_of(origin, digest, _SIZE - 1)
    with pytest.raises(WrongSize, match=f"{_SIZE} bytes for a blob of {_SIZE - 1}") as refused:
        await sources.open(0, stop)
    assert refused.value.failure is Failure.SERVER
    assert not sources.was_opened
    assert origin.upstream.counters.requests("GET") == requests
    assert closed == [False, True][-requests:], "an upstream is believed to be wrong by the whole alone"


async def test_open__of_unknown_size__what_is_known_holds(origin: Origin, digest: Digest) -> None:
    origin.upstream.dials.blob_length = "chunked"
    origin.upstream.dials.blob_ranges = "ignored"
    sources = await sources_of(origin, digest, _SIZE)
    assert await read(await sources.open(0)) == origin.upstream.content(digest)
    assert sources.size == _SIZE


async def test_open__nobody_is_chosen__another_has_to_be(origin: Origin, digest: Digest) -> None:
    sources = Sources(origin.supply(digest), origin.repository, digest, None, origin.metrics)
    with pytest.raises(SourceLost):
        await sources.open(0)


async def test_open_any__of_a_sibling__the_upstream_is_not_asked(origin: Origin, digest: Digest) -> None:
    content = origin.upstream.content(digest)
    async with origin.lending(content):
        sources = await sources_of(origin, digest)
        assert await read(await sources.open_any(100)) == content[100:]
        assert (sources.size, sources.was_opened, sources.bound(_SIZE, 0)) == (_SIZE, False, None)
    assert origin.upstream.counters.requests() == 0


async def test_open__a_range_of_a_sibling_that_has_another_size__it_is_to_blame(origin: Origin, digest: Digest) -> None:
    async with origin.lending(bytes(_SIZE + 1)):
        sources = await sources_of(origin, digest, _SIZE)
        with pytest.raises(SourceLost, match=f"{_SIZE + 1} bytes"):
            await sources.open(0, 1000)
        assert origin.siblings.order(origin.member.siblings.values()) == [], "it is left alone"


async def test_open_any__the_sibling_has_another_size__the_upstream_is_asked_instead(
    origin: Origin, digest: Digest
) -> None:
    async with origin.lending(bytes(_SIZE + 1)):
        sources = await sources_of(origin, digest, _SIZE)
        lent = sources.pace
        assert await read(await sources.open_any(0)) == origin.upstream.content(digest)
        assert sources.was_opened
        assert sources.bound(_SIZE, 0) is not None
        assert sources.pace is not lent
        assert origin.siblings.order(origin.member.siblings.values()) == [], "it is left alone"


async def test_open_any__nobody_has_it__says_the_upstream(origin: Origin) -> None:
    sources = await sources_of(origin, Digest.of(b"nobody has this"))
    with pytest.raises(RegistryError) as refused:
        await sources.open_any(0)
    assert refused.value.failure is None


async def test_retried__is_counted_by_its_reason(origin: Origin, digest: Digest) -> None:
    sources = await sources_of(origin, digest)
    sources.retried(SourceLost("b", "it failed"))
    name, labels = "layover_upstream_retries_total", {"upstream": sources.label}
    assert origin.registry.get_sample_value(name, {**labels, "reason": Failure.RESET}) == 1
