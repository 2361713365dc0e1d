"""Blobs that one replica has from another: whole, growing, and cut."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from mirror.channel import Filling
from mirror.fill import Supply, lead
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.source import RangeRefused
from mirror.source.sibling import SiblingError
from tests.source.sibling.conftest import SECONDS, Bench, eventually, read, read_up_to

_KIB = 2**10
_MIB = 2**20
_TAIL = 64 * _KIB
_SIZE = 2 * _MIB
_NOWHERE = Digest.of(b"nobody has this")


async def _filling(bench: Bench, sent: int, size: int = _SIZE) -> tuple[Digest, Filling]:
    """Have a blob on its way of which the registry has sent so much, and waits."""
    bench.upstream.dials.blob_stall = sent
    digest = bench.push(size)
    filling = await bench.begin(digest)
    await eventually(lambda: bench.upstream.counters.sent(digest) == sent)
    return digest, filling


async def test_open__a_whole_blob__all_of_it(bench: Bench) -> None:
    digest = bench.push(_SIZE)
    await bench.hold(digest)
    stream = await bench.siblings.blobs(bench.b).open(bench.repository, digest, 0)
    assert (stream.start, stream.stop, stream.size) == (0, _SIZE, _SIZE)
    assert (stream.chain, stream.is_growing) == (("b",), False)
    assert Digest.of(await read(stream)) == digest
    assert bench.metric("layover_sibling_bytes_total", peer_region="here") == _SIZE
    assert bench.upstream.counters.sent(digest) == _SIZE


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (5, _MIB), (_MIB, None), (_SIZE - 1, _SIZE), (1, 2 * _SIZE)])
@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "growing"])
async def test_open__a_range__that_range(bench: Bench, start: int, stop: int | None, is_whole: bool) -> None:
    if is_whole:
        digest = bench.push(_SIZE)
        await bench.hold(digest)
    else:
        digest, _ = await _filling(bench, _SIZE - 1)
    stream = await bench.siblings.blobs(bench.b).open(bench.repository, digest, start, stop)
    end = _SIZE if stop is None else min(stop, _SIZE)
    assert (stream.start, stream.stop, stream.size, stream.is_growing) == (start, end, _SIZE, not is_whole)
    bench.upstream.release()
    assert await read(stream) == bench.upstream.content(digest)[start:end]


async def test_open__beyond_the_end__is_refused_as_such(bench: Bench) -> None:
    digest = bench.push(_SIZE)
    await bench.hold(digest)
    with pytest.raises(RangeRefused):
        await bench.siblings.blobs(bench.b).open(bench.repository, digest, _SIZE)


async def test_read__a_growing_blob__each_byte_that_came_but_for_the_tail(bench: Bench) -> None:
    digest, _ = await _filling(bench, _SIZE - 1)
    stream = await bench.siblings.blobs(bench.b).open(bench.repository, digest, 0)
    assert (stream.size, stream.chain, stream.is_growing) == (_SIZE, ("b",), True)
    content = bench.upstream.content(digest)
    assert await read_up_to(stream, _SIZE - _TAIL) == content[: _SIZE - _TAIL]
    waiting = asyncio.ensure_future(read(stream))
    await asyncio.sleep(0)
    assert stream.waiting_since is None, "what is withheld is not what a source is slow with"
    bench.upstream.release()
    assert await waiting == content[_SIZE - _TAIL :]
    assert bench.upstream.counters.sent(digest) == _SIZE


async def test_read__a_growing_blob_that_stands_still__it_is_seen_to_wait(bench: Bench) -> None:
    digest, _ = await _filling(bench, _MIB)
    stream = await bench.siblings.blobs(bench.b).open(bench.repository, digest, 0)
    await read_up_to(stream, _MIB)
    waiting = asyncio.ensure_future(read(stream))
    await asyncio.sleep(0)
    assert stream.waiting_since is not None
    bench.upstream.release()
    assert await waiting == bench.upstream.content(digest)[_MIB:]
    assert stream.waiting_since is None


async def test_read__a_growing_blob_of_unknown_size__is_withheld_in_the_same_way(bench: Bench) -> None:
    bench.upstream.dials.blob_length = "chunked"
    bench.upstream.dials.blob_ranges = "ignored"
    digest, _ = await _filling(bench, _MIB)
    stream = await bench.siblings.blobs(bench.b).open(bench.repository, digest, 5, 10)
    assert (stream.start, stream.stop, stream.size) == (0, None, None)
    assert await read_up_to(stream, _MIB - _TAIL) == bench.upstream.content(digest)[: _MIB - _TAIL]
    bench.upstream.release()
    assert await read(stream) == bench.upstream.content(digest)[_MIB - _TAIL :]


async def test_open__nothing_is_there__is_told_and_starts_nothing(bench: Bench) -> None:
    digest = bench.push(_SIZE)
    with pytest.raises(RegistryError) as refused:
        await bench.siblings.blobs(bench.b).open(bench.repository, digest, 0)
    assert (refused.value.code, refused.value.failure) == (ErrorCode.BLOB_UNKNOWN, None)
    assert bench.member.missed == [("b", digest)]
    assert bench.siblings.order([bench.b]) == [bench.b], "who says what it lacks has not failed"
    assert bench.upstream.counters.requests() == 0
    assert bench.app.store.shelf.link(bench.repository, digest) is None


async def test_open__the_source_has_yet_to_confirm__waits_for_it(bench: Bench) -> None:
    bench.upstream.dials.latency = {"blob": 1.2}
    digest = bench.push(_SIZE)
    filling = asyncio.ensure_future(bench.begin(digest))
    await eventually(lambda: bench.upstream.counters.requests(kind="blob") == 1)
    stream = await bench.siblings.blobs(bench.b).open(bench.repository, digest, 0)
    assert Digest.of(await read(stream)) == digest
    await filling
    # While nothing came, a sign of life may have told how far it is.
    latency = bench.siblings._client.standings.of("b").latency
    assert latency == math.inf or latency < 0.6, "what was waited for tells nothing of how far it is"
    assert bench.upstream.counters.requests(kind="blob", method="GET") == 1


@pytest.mark.parametrize(
    ("chain", "followers", "is_refused"),
    [
        ((), (), False),
        (("c",), (), False),
        (("a",), (), True),
        (("c",), ("c",), True),
        (("c",), ("d", "e"), False),
        (("c", "d"), (), True),
    ],
    ids=["upstream", "another", "the asker", "a follower", "others", "too far"],
)
async def test_open__what_comes_from_others__never_goes_back_to_them(
    bench: Bench,
    chain: tuple[str, ...],
    followers: tuple[str, ...],
    is_refused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digest, filling = await _filling(bench, _MIB)
    fill = bench.app.hub._blobs._fills[filling.fill]
    monkeypatch.setattr(Supply, "chain", chain)
    opening = bench.siblings.blobs(bench.b, followers).open(bench.repository, digest, 0)
    if is_refused:
        with pytest.raises(SiblingError, match="503"):
            await opening
        assert bench.member.missed == []
        assert bench.siblings.order([bench.b]) == [bench.b], "it did what it should"
        assert fill.followers == set()
    else:
        stream = await opening
        assert stream.chain == ("b", *chain)
        assert fill.followers == {"a", *followers}
        await stream.close()


async def test_read__what_grows__is_not_far_ahead_of_who_follows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lead, "_STALLED_SECONDS", math.inf)
    monkeypatch.setattr(lead, "_HELD_SHARE", math.inf)
    size = 96 * _MIB
    digest, filling = await _filling(bench, _MIB, size)
    supply = bench.app.hub._blobs._fills[filling.fill]._supply
    supply._lead = supply._leads.enter(digest, size, time.monotonic())
    stream = await bench.siblings.blobs(bench.b).open(bench.repository, digest, 0)
    bench.upstream.dials.blob_stall = None
    bench.upstream.release()
    await eventually(lambda: bench.upstream.counters.sent(digest) > lead.window(size))
    await asyncio.sleep(0.5)  # what may come has come, or comes later: less is no error
    # What sockets take besides is with the sibling as good as read.
    assert bench.upstream.counters.sent(digest) < size // 2
    assert bench.app.hub._blobs._fills[filling.fill].followers == {"a"}
    assert Digest.of(await read(stream)) == digest
    assert bench.upstream.counters.sent(digest) == size


async def test_open__a_purge_has_yet_to_be_carried_out_there__nothing_is_had_from_it(bench: Bench) -> None:
    digest = bench.push(_SIZE)
    await bench.hold(digest)
    bench.siblings._client._epoch = lambda: 3
    with pytest.raises(SiblingError, match="503"):
        await bench.siblings.blobs(bench.b).open(bench.repository, digest, 0)
    assert not await bench.siblings.has(bench.b, digest, 60)
    assert bench.member.missed == []
    assert bench.membership is not None
    bench.membership = type(bench.membership)("b", "boot-b", bench.membership.secret, bench.membership.clock, 3)
    assert await bench.siblings.has(bench.b, digest, 60)


async def test_read__the_filler_fails__every_byte_it_had_was_read_first(bench: Bench) -> None:
    digest, filling = await _filling(bench, _MIB)
    stream = await bench.siblings.blobs(bench.b).open(bench.repository, digest, 0)
    got = await read_up_to(stream, _MIB)
    bench.app.hub._blobs._tasks[bench.app.hub._blobs._fills[filling.fill]].cancel()
    with pytest.raises(SiblingError):
        async with asyncio.timeout(SECONDS):
            await stream.read()
    await stream.close()
    assert got == bench.upstream.content(digest)[:_MIB]
    assert bench.siblings.order([bench.b]) == []


async def test_read__the_asker_leaves__the_fill_goes_on(bench: Bench) -> None:
    digest, _ = await _filling(bench, _MIB)
    stream = await bench.siblings.blobs(bench.b).open(bench.repository, digest, 0)
    await read_up_to(stream, _MIB)
    await stream.close()
    bench.upstream.release()
    await eventually(lambda: bench.holds(digest))
    assert bench.upstream.counters.sent(digest) == _SIZE


async def test_open__whoever_may_pull_what__is_the_askers_to_say(bench: Bench) -> None:
    """Under a repository, and an upstream, of which this replica knows nothing."""
    digest = bench.push(_SIZE)
    await bench.hold(digest)
    elsewhere = type(bench.repository)("registry.example", "some/where")
    stream = await bench.siblings.blobs(bench.b).open(elsewhere, digest, 0)
    assert Digest.of(await read(stream)) == digest
    assert bench.app.store.shelf.link(elsewhere, digest) is None


async def test_open__other_replicas__is_no_clients_request(bench: Bench) -> None:
    digest = bench.push(_SIZE)
    await bench.hold(digest)
    await read(await bench.siblings.blobs(bench.b).open(bench.repository, digest, 0))
    assert bench.metric("layover_requests_total") == 0
    assert bench.metric("layover_response_bytes_total") == 0
