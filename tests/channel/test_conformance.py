"""What every hub does for a door, whatever lies between them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from pathlib import Path

import pytest

from mirror.channel import Changes, Filling, Membership, Progress, Stream, Unstored, Whole
from mirror.config.units import Secret
from mirror.fill import Supply
from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.observe.metrics import Sample
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository, Tag
from mirror.oci.use import Use
from mirror.pull.follower import follow
from mirror.store import Link, Shelf, TagState
from mirror.store.records import tag_key
from tests.channel.conftest import Bench, eventually
from tests.chaos.filesystem import fill_up
from tests.upstream import Failure as UpstreamFailure

_KIB = 2**10
_MIB = 2**20
_TAIL = 64 * _KIB
_SECONDS = 20.0
_NOWHERE = Digest.of(b"nobody has this")


async def _read(stream: Stream) -> bytes:
    pieces = []
    while piece := await asyncio.wait_for(stream.read(), _SECONDS):
        assert len(piece) <= 256 * _KIB
        pieces.append(piece)
    return b"".join(pieces)


async def _refusal(waiting: object) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        await asyncio.wait_for(waiting, _SECONDS)  # type: ignore[arg-type]
    return caught.value


async def _follow(bench: Bench, filling: Filling) -> Progress:
    """Follow a fill to its end."""
    progress = Progress(0)
    async with asyncio.timeout(_SECONDS):
        while not progress.is_verified:
            progress = await bench.hub.progress(filling.fill, progress.end)
    return progress


async def _reach(bench: Bench, filling: Filling, expected: int) -> int:
    """Follow a fill until `expected` bytes may be read, and not one more."""
    end = 0
    async with asyncio.timeout(_SECONDS):
        while end < expected:
            progress = await bench.hub.progress(filling.fill, end)
            assert end < progress.end <= expected, progress
            assert progress == Progress(progress.end, filling.size)
            end = progress.end
    return end


async def _hold(bench: Bench, digest: Digest) -> None:
    """Have a blob held, whole."""
    found = await bench.hub.blob(bench.repository, digest)
    if isinstance(found, Filling):
        await _follow(bench, found)
    name = f"{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"
    await eventually((bench.disk / "store" / "content" / name).exists)


# Manifests


async def test_manifest__by_tag_then_by_digest(bench: Bench) -> None:
    image = bench.push_image(100)
    found = await bench.hub.manifest(bench.repository, Tag("1"))
    assert found.digest == image.index.digest
    assert isinstance(found.digest, Digest)
    assert found.media_type == image.index.media_type
    assert found.body == bench.upstream.content(image.index.digest)
    assert found.status.outcome is Outcome.MISS
    again = await bench.hub.manifest(bench.repository, Tag("1"))
    assert (again.digest, again.status.outcome) == (found.digest, Outcome.HIT)
    assert again.status.ttl is not None
    assert 290 < again.status.ttl <= 300
    by_digest = await bench.hub.manifest(bench.repository, found.digest)
    assert by_digest.body == found.body
    assert by_digest.status == CacheStatus(Outcome.HIT)
    assert bench.upstream.counters.requests(kind="manifest") == 1


async def test_manifest__many_at_once__one_request(bench: Bench) -> None:
    image = bench.push_image(100)
    bench.upstream.dials.latency = {"manifest": 0.2}
    found = await asyncio.gather(*(bench.hub.manifest(bench.repository, Tag("1")) for _ in range(50)))
    assert {each.digest for each in found} == {image.index.digest}
    outcomes = [each.status.outcome for each in found]
    assert (outcomes.count(Outcome.MISS), outcomes.count(Outcome.JOINED)) == (1, 49)
    assert bench.upstream.counters.requests(kind="manifest") == 1


async def test_manifest__the_largest_there_may_be(bench: Bench) -> None:
    body = json.dumps({"schemaVersion": 2, "annotations": {"a": "x" * (4 * _MIB - 1000)}}).encode()
    media_type = "application/vnd.oci.image.manifest.v1+json"
    digest = bench.upstream.push_manifest(bench.repository.name, "large", body, media_type)
    found = await bench.hub.manifest(bench.repository, Tag("large"))
    assert (found.digest, found.body) == (digest, body)


# Blobs


async def test_pulled__what_the_manifest_refers_to_comes_in(bench: Bench) -> None:
    image = bench.push_image(100_000)
    manifest = image.manifests[0].digest
    await bench.hub.pulled(bench.repository, Digest(manifest))
    found = await bench.hub.manifest(bench.repository, Digest(manifest))
    await bench.hub.pulled(bench.repository, found.digest)
    await eventually(lambda: bench.local._store.objects["blob"] == len(image.blobs))
    assert bench.upstream.counters.requests(method="GET", kind="blob", repository=bench.repository.name) == 2


async def test_blob__filling_then_whole(bench: Bench) -> None:
    digest = bench.push(_MIB)
    filling = await bench.hub.blob(bench.repository, digest)
    assert isinstance(filling, Filling)
    assert filling.size == _MIB
    assert filling.status.outcome is Outcome.MISS
    verified = await _follow(bench, filling)
    assert verified == Progress(_MIB, _MIB, is_verified=True)
    await _hold(bench, digest)
    whole = await bench.hub.blob(bench.repository, digest)
    assert whole == Whole(_MIB, CacheStatus(Outcome.HIT))
    assert bench.upstream.counters.sent(digest) == _MIB


async def test_blob__many_at_once__one_fill(bench: Bench) -> None:
    digest = bench.push(_MIB)
    bench.upstream.dials.blob_stall = _MIB // 2
    found = await asyncio.gather(*(bench.hub.blob(bench.repository, digest) for _ in range(50)))
    fillings = [each for each in found if isinstance(each, Filling)]
    assert len(fillings) == 50
    assert len({(each.fill, each.path) for each in fillings}) == 1
    outcomes = [each.status.outcome for each in fillings]
    assert (outcomes.count(Outcome.MISS), outcomes.count(Outcome.JOINED)) == (1, 49)
    assert bench.upstream.counters.requests("GET", "blob") == 1


async def test_progress__before_and_after__the_file_has_what_it_says(bench: Bench) -> None:
    digest = bench.push(_MIB)
    bench.upstream.dials.blob_stall = _MIB // 2
    filling = await bench.hub.blob(bench.repository, digest)
    assert isinstance(filling, Filling)
    end = await _reach(bench, filling, _MIB // 2)
    content = bench.upstream.content(digest)
    growing = await asyncio.to_thread(Path(filling.path).read_bytes)
    assert growing[:end] == content[:end]
    waiting = asyncio.ensure_future(bench.hub.progress(filling.fill, end))
    inside = await bench.hub.progress(filling.fill, 1000)
    assert inside.end == end
    assert not waiting.done()
    bench.upstream.release()
    assert (await asyncio.wait_for(waiting, _SECONDS)).end > end
    assert (await _follow(bench, filling)).end == _MIB


async def test_progress__the_tail_is_withheld_until_it_verified(bench: Bench) -> None:
    digest = bench.push(_MIB)
    bench.upstream.dials.blob_stall = _MIB - 1
    filling = await bench.hub.blob(bench.repository, digest)
    assert isinstance(filling, Filling)
    end = await _reach(bench, filling, _MIB - _TAIL)
    waiting = asyncio.ensure_future(bench.hub.progress(filling.fill, end))
    in_tail = asyncio.ensure_future(bench.hub.progress(filling.fill, _MIB - 10))
    await bench.hub.progress(filling.fill, 0)
    assert not waiting.done()
    assert not in_tail.done()
    bench.upstream.release()
    for each in (waiting, in_tail):
        assert await asyncio.wait_for(each, _SECONDS) == Progress(_MIB, _MIB, is_verified=True)


async def test_progress__unknown_size(bench: Bench) -> None:
    digest = bench.push(_MIB)
    bench.upstream.dials.blob_ranges = "ignored"
    bench.upstream.dials.blob_length = "chunked"
    bench.upstream.dials.blob_stall = _MIB // 2
    filling = await bench.hub.blob(bench.repository, digest)
    assert isinstance(filling, Filling)
    assert filling.size is None
    await _reach(bench, filling, _MIB // 2 - _TAIL)
    bench.upstream.release()
    assert await _follow(bench, filling) == Progress(_MIB, _MIB, is_verified=True)


async def test_progress__a_wrong_digest(bench: Bench) -> None:
    digest = bench.push(_MIB)
    bench.upstream.dials.blob_corrupt = True
    filling = await bench.hub.blob(bench.repository, digest)
    assert isinstance(filling, Filling)
    refusals = await asyncio.gather(*(_refusal(bench.hub.progress(filling.fill, _MIB - _TAIL)) for _ in range(5)))
    late = await _refusal(bench.hub.progress(filling.fill, 0))
    for refusal in (*refusals, late):
        assert (refusal.code, refusal.failure, refusal.retry_after) == (ErrorCode.UNAVAILABLE, Failure.SERVER, 10)
        assert digest in refusal.message


async def test_progress__a_fill_that_nobody_knows(bench: Bench) -> None:
    assert await bench.hub.progress(1_000_000, 5) == Progress(5, is_forgotten=True)


async def test_progress__a_fill_that_has_ended(bench: Bench) -> None:
    digest = bench.push(_MIB)
    filling = await bench.hub.blob(bench.repository, digest)
    assert isinstance(filling, Filling)
    await _follow(bench, filling)
    await _hold(bench, digest)
    assert await bench.hub.progress(filling.fill, 3) == Progress(_MIB, _MIB, is_verified=True)


async def test_progress__the_room_is_lost(bench: Bench) -> None:
    size = 4 * _MIB
    digest = bench.push(size)
    bench.upstream.dials.blob_stall = size // 2
    filling = await bench.hub.blob(bench.repository, digest)
    assert isinstance(filling, Filling)
    fill_up(bench.disk)
    bench.upstream.dials.blob_stall = None
    waiting = asyncio.ensure_future(bench.hub.progress(filling.fill, size - _TAIL))
    bench.upstream.release()
    progress = await asyncio.wait_for(waiting, _SECONDS)
    assert progress.lost_room
    assert not progress.is_verified
    found = await bench.hub.blob(bench.repository, digest)
    assert isinstance(found, Unstored)


async def test_blob_size__asked_of_the_upstream_then_known_then_held(bench: Bench) -> None:
    image = bench.push_image(_MIB)
    digest = Digest(image.layers[0].digest)
    cold = await bench.hub.blob_size(bench.repository, digest)
    assert (cold.size, cold.status.outcome) == (_MIB, Outcome.MISS)
    assert bench.upstream.counters.requests("HEAD", "blob") == 1
    await bench.hub.manifest(bench.repository, Digest(image.manifests[0].digest))
    asked = bench.upstream.counters.requests()
    known = await bench.hub.blob_size(bench.repository, digest)
    assert (known.size, known.status) == (_MIB, CacheStatus(Outcome.HIT))
    assert bench.upstream.counters.requests() == asked
    assert bench.upstream.counters.sent(digest) == 0
    await _hold(bench, digest)
    asked = bench.upstream.counters.requests()
    held = await bench.hub.blob_size(bench.repository, digest)
    assert (held.size, held.status) == (_MIB, CacheStatus(Outcome.HIT))
    assert bench.upstream.counters.requests() == asked


async def test_blob_size__nobody_tells_it(bench: Bench) -> None:
    digest = bench.push(_MIB)
    bench.upstream.dials.redirect = True
    bench.upstream.dials.cdn_head_status = 403
    found = await bench.hub.blob_size(bench.repository, digest)
    assert found.size == _MIB


# Blobs that cannot be stored


async def test_stream__no_room(bench: Bench) -> None:
    fill_up(bench.disk)
    size = 2 * _MIB
    digest = bench.push(size)
    found = await bench.hub.blob(bench.repository, digest)
    assert found == Unstored(size, CacheStatus(Outcome.MISS, is_stored=False))
    stream = await bench.hub.stream(bench.repository, digest, 0)
    assert stream.size == size
    assert Digest.of(await _read(stream)) == digest
    assert await stream.read() == b""
    await stream.close()


@pytest.mark.parametrize("start", [1, _MIB, 2 * _MIB - _TAIL, 2 * _MIB - 1])
async def test_stream__from_the_middle(bench: Bench, start: int) -> None:
    digest = bench.push(2 * _MIB)
    stream = await bench.hub.stream(bench.repository, digest, start)
    assert await _read(stream) == bench.upstream.content(digest)[start:]
    await stream.close()


@pytest.mark.parametrize("length", ["announced", "chunked"])
async def test_stream__the_tail_is_withheld(bench: Bench, length: str) -> None:
    size = 2 * _MIB
    digest = bench.push(size)
    bench.upstream.dials.blob_length = length  # type: ignore[assignment]
    bench.upstream.dials.blob_stall = sent = size - 1
    stream = await bench.hub.stream(bench.repository, digest, 0)
    assert stream.size == (size if length == "announced" else None)
    due = (size if length == "announced" else sent) - _TAIL
    got = b""
    while len(got) < due:
        got += await asyncio.wait_for(stream.read(), _SECONDS)
    assert got == bench.upstream.content(digest)[:due]
    waiting = asyncio.ensure_future(stream.read())
    await bench.hub.progress(1_000_000, 0)
    assert not waiting.done()
    bench.upstream.release()
    got += await asyncio.wait_for(waiting, _SECONDS) + await _read(stream)
    assert Digest.of(got) == digest
    assert stream.size == size
    await stream.close()


@pytest.mark.parametrize("size", [1, _TAIL, _TAIL + 1, 2 * _MIB])
async def test_stream__a_wrong_digest(bench: Bench, size: int) -> None:
    digest = bench.push(size)
    bench.upstream.dials.blob_corrupt = True
    stream = await bench.hub.stream(bench.repository, digest, 0)
    got = 0
    while got < size - _TAIL:
        got += len(await asyncio.wait_for(stream.read(), _SECONDS))
    assert got == max(0, size - _TAIL)
    with pytest.raises(RegistryError) as caught:
        await asyncio.wait_for(stream.read(), _SECONDS)
    assert (caught.value.code, caught.value.failure) == (ErrorCode.UNAVAILABLE, Failure.SERVER)
    await stream.close()


async def test_stream__cut_while_nobody_reads__no_byte_is_fetched_twice(bench: Bench) -> None:
    size, cut = 2 * _MIB, 300 * _KIB
    digest = bench.push(size)
    bench.upstream.dials.blob_cut = cut
    stream = await bench.hub.stream(bench.repository, digest, 0)
    await eventually(lambda: bench.upstream.counters.sent(digest) == cut)
    await bench.hub.blob_size(bench.repository, digest)  # by now the end of the connection has come as well
    assert Digest.of(await _read(stream)) == digest
    assert bench.upstream.counters.sent(digest) == size
    assert bench.upstream.counters.overlaps(digest) == 0
    await stream.close()


async def test_stream__closed_early__the_upstream_request_ends(bench: Bench) -> None:
    size = 30 * _MIB
    digest = bench.push(size)
    stream = await bench.hub.stream(bench.repository, digest, 0)
    await stream.read()
    await stream.close()
    await bench.hub.progress(1_000_000, 0)
    assert bench.upstream.counters.sent(digest) < size


async def test_stream__several_at_once(bench: Bench) -> None:
    digest = bench.push(3 * _MIB)

    async def one() -> str:
        stream = await bench.hub.stream(bench.repository, digest, 0)
        hasher = hashlib.sha256()
        while piece := await stream.read():
            hasher.update(piece)
        await stream.close()
        return f"sha256:{hasher.hexdigest()}"

    assert set(await asyncio.gather(*(one() for _ in range(20)))) == {digest}


# Listings


async def test_tags__pages(bench: Bench) -> None:
    bench.push_image(100)
    for tag in ("2", "3"):
        bench.upstream.push_image(bench.repository.name, tag, ["linux/amd64"], [100])
    page = await bench.hub.tags(bench.repository, "n=2")
    assert json.loads(page.body)["tags"] == ["1", "2"]
    assert page.media_type == "application/json"
    assert page.next_query is not None
    rest = await bench.hub.tags(bench.repository, page.next_query)
    assert json.loads(rest.body)["tags"] == ["3"]
    assert rest.next_query is None


async def test_referrers__filtered(bench: Bench) -> None:
    image = bench.push_image(100)
    subject = Digest(image.index.digest)
    for kind in ("application/a", "application/b"):
        body = {"schemaVersion": 2, "artifactType": kind, "subject": image.index.document}
        bench.upstream.push_manifest(
            bench.repository.name,
            f"of-{kind[-1]}",
            json.dumps(body).encode(),
            "application/vnd.oci.image.manifest.v1+json",
        )
    listing = await bench.hub.referrers(bench.repository, subject, "")
    assert len(json.loads(listing.body)["manifests"]) == 2
    assert listing.media_type == "application/vnd.oci.image.index.v1+json"
    assert listing.filters_applied is None
    filtered = await bench.hub.referrers(bench.repository, subject, "artifactType=application%2Fa")
    assert len(json.loads(filtered.body)["manifests"]) == 1
    assert filtered.filters_applied == "artifactType"


# Errors


async def test_errors__unknown(bench: Bench) -> None:
    bench.push_image(100)
    asked = [
        (bench.hub.manifest(bench.repository, Tag("nowhere")), ErrorCode.MANIFEST_UNKNOWN),
        (bench.hub.manifest(bench.repository, _NOWHERE), ErrorCode.MANIFEST_UNKNOWN),
        (bench.hub.blob(bench.repository, _NOWHERE), ErrorCode.BLOB_UNKNOWN),
        (bench.hub.blob_size(bench.repository, _NOWHERE), ErrorCode.BLOB_UNKNOWN),
        (bench.hub.stream(bench.repository, _NOWHERE, 0), ErrorCode.BLOB_UNKNOWN),
        (bench.hub.tags(Repository("docker.io", "no/where"), ""), ErrorCode.NAME_UNKNOWN),
        (bench.hub.manifest(Repository("unknown.example", "a"), Tag("1")), ErrorCode.NAME_UNKNOWN),
    ]
    for waiting, code in asked:
        refusal = await _refusal(waiting)
        assert (refusal.code, refusal.failure, refusal.retry_after) == (code, None, None), refusal


async def test_errors__the_upstream_is_gone(bench: Bench) -> None:
    digest = bench.push(100)
    bench.upstream.pause()
    asked = [
        bench.hub.manifest(bench.repository, Tag("1")),
        bench.hub.blob(bench.repository, digest),
        bench.hub.blob_size(bench.repository, digest),
        bench.hub.stream(bench.repository, digest, 0),
        bench.hub.tags(bench.repository, ""),
        bench.hub.referrers(bench.repository, digest, ""),
    ]
    for refusal in await asyncio.gather(*map(_refusal, asked)):
        assert (refusal.code, refusal.failure) == (ErrorCode.UNAVAILABLE, Failure.REFUSED), refusal
        assert refusal.retry_after is not None
        assert "docker.io" in refusal.message


async def test_errors__the_upstream_limits_its_rate(bench: Bench) -> None:
    bench.push_image(100)
    bench.upstream.dials.failures = [UpstreamFailure(status=429, retry_after="77")]
    refusal = await _refusal(bench.hub.manifest(bench.repository, Tag("1")))
    assert (refusal.code, refusal.failure, refusal.retry_after) == (ErrorCode.TOOMANYREQUESTS, Failure.TOO_MANY, 77)


async def test_errors__the_upstream_denies(bench: Bench) -> None:
    bench.push_image(100)
    bench.upstream.dials.failures = [UpstreamFailure(status=403, body="json")]
    refusal = await _refusal(bench.hub.manifest(bench.repository, Tag("1")))
    assert (refusal.code, refusal.failure) == (ErrorCode.DENIED, None)


# Waiting


async def test_cancel__a_waiting_call__the_fill_goes_on_and_so_does_the_channel(bench: Bench) -> None:
    digest = bench.push(_MIB)
    bench.upstream.dials.blob_stall = _MIB // 2
    filling = await bench.hub.blob(bench.repository, digest)
    assert isinstance(filling, Filling)
    waiting = [asyncio.ensure_future(bench.hub.progress(filling.fill, _MIB - 1)) for _ in range(10)]
    await bench.hub.progress(filling.fill, 0)
    for each in waiting[1:]:
        each.cancel()
    assert all(
        isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*waiting[1:], return_exceptions=True)
    )
    bench.upstream.release()
    assert (await asyncio.wait_for(waiting[0], _SECONDS)).is_verified
    assert bench.upstream.counters.overlaps(digest) == 0


async def test_cancel__the_one_that_asked_for_the_blob__others_get_it(bench: Bench) -> None:
    digest = bench.push(_MIB)
    bench.upstream.dials.latency = {"blob": 0.3}
    first = asyncio.ensure_future(bench.hub.blob(bench.repository, digest))
    second = asyncio.ensure_future(bench.hub.blob(bench.repository, digest))
    await eventually(lambda: bench.upstream.counters.requests("GET", "blob") > 0)
    first.cancel()
    found = await asyncio.wait_for(second, _SECONDS)
    assert isinstance(found, Filling)
    assert (await _follow(bench, found)).is_verified
    assert bench.upstream.counters.requests("GET", "blob") == 1


async def test_calls__hundreds_at_once__none_waits_for_another(bench: Bench) -> None:
    stalled, quick = bench.push(_MIB), bench.push(100)
    bench.upstream.dials.blob_digests = {stalled}
    bench.upstream.dials.blob_stall = 0
    filling = await bench.hub.blob(bench.repository, stalled)
    assert isinstance(filling, Filling)
    waiting = [asyncio.ensure_future(bench.hub.progress(filling.fill, 0)) for _ in range(500)]
    await _hold(bench, quick)
    found = await asyncio.gather(*(bench.hub.blob(bench.repository, quick) for _ in range(300)))
    assert all(isinstance(each, Whole) for each in found)
    assert not any(each.done() for each in waiting)
    bench.upstream.release()
    assert all(progress.end > 0 for progress in await asyncio.wait_for(asyncio.gather(*waiting), _SECONDS))


async def test_report__is_taken(bench: Bench) -> None:
    digest = bench.push(100)
    sample = Sample(
        "layover_requests", "counter", "Requests.", "layover_requests_total", {"upstream": "docker.io"}, 3.0
    )
    await bench.hub.report("1-2", [sample], {digest: Use(1, 1_700_000_000.5)})
    await bench.hub.report("1-2", [sample._replace(value=5.0)], {})
    assert [list(each) for each in bench.local.tally.groups()] == [[sample._replace(value=5.0)]]


# Changes


async def _changes(bench: Bench, seen: str) -> Changes:
    return await asyncio.wait_for(bench.hub.changes(seen), _SECONDS)


async def _door(bench: Bench) -> tuple[Shelf, str]:
    """Return a shelf that shows what the hub's does, and what it has seen."""
    shelf = Shelf(bench.disk / "store", remembers_tags=False)
    seen = await _catch_up(bench, shelf, "")
    shelf.follow(shelf.readers())
    return shelf, seen


async def _catch_up(bench: Bench, shelf: Shelf, seen: str) -> str:
    """Have a shelf show what the hub's shows by now, and return what it has seen."""
    asked_at = time.monotonic()
    changes = await _changes(bench, seen)
    while not changes.is_complete:
        changes = await _changes(bench, follow(shelf, changes, asked_at))
    return follow(shelf, changes, asked_at)


async def test_changes__a_new_door__everything_anew_and_then_nothing(bench: Bench) -> None:
    first = await _changes(bench, "")
    assert first.is_anew
    again = await _changes(bench, first.seen)
    assert (again.seen, again.rows, again.is_anew, again.is_complete) == (first.seen, {}, False, True)


async def test_changes__what_no_hub_said__everything_anew(bench: Bench) -> None:
    seen = (await _changes(bench, "")).seen
    for nonsense in ("x", "0.0.0", f"{seen}1", f"0{seen}", seen.rpartition(".")[0]):
        assert (await _changes(bench, nonsense)).is_anew, nonsense


async def test_changes__come_at_once_and_in_order(bench: Bench) -> None:
    bench.push_image(100)
    seen = (await _changes(bench, "")).seen
    waiting = [asyncio.ensure_future(bench.hub.changes(seen)) for _ in range(3)]
    found = await bench.hub.manifest(bench.repository, Tag("1"))
    for each in waiting:
        changes = await each
        while tag_key(str(bench.repository), "1") not in changes.rows:
            assert not changes.is_anew
            changes = await _changes(bench, changes.seen)
    shelf, _ = await _door(bench)
    state = shelf.tag(bench.repository, "1")
    assert state is not None
    assert state.digest == found.digest
    assert shelf.link(bench.repository, found.digest) is not None


async def test_changes__settle_once_they_are_written(bench: Bench) -> None:
    bench.push_image(100)
    await bench.hub.manifest(bench.repository, Tag("1"))
    changes = await _changes(bench, "")
    async with asyncio.timeout(_SECONDS):
        while not changes.is_settled:
            changes = await _changes(bench, changes.seen)
    shelf = Shelf(bench.disk / "store", remembers_tags=False)
    shelf.follow(shelf.readers())
    assert shelf.tag(bench.repository, "1") is not None
    shelf.close()


async def test_changes__the_index_cannot_be_written__doors_show_them_nevertheless(bench: Bench) -> None:
    image = bench.push_image(100)
    await bench.hub.manifest(bench.repository, Tag("1"))
    shelf, seen = await _door(bench)
    fill_up(bench.disk)
    moved = TagState(Digest(image.manifests[0].digest), image.manifests[0].media_type, 1, time.time() + 1)
    bench.local._store.set_tag(bench.repository, Tag("1"), moved)
    seen = await _catch_up(bench, shelf, seen)
    assert shelf.tag(bench.repository, "1") == moved
    late, _ = await _door(bench)
    assert late.tag(bench.repository, "1") == moved
    bench.local._store.drop_tag(bench.repository, Tag("1"))
    await _catch_up(bench, shelf, seen)
    assert shelf.tag(bench.repository, "1") is None
    shelf.close()


async def test_changes__thousands_at_once__all_of_them(bench: Bench) -> None:
    shelf, seen = await _door(bench)
    digests = [Digest.of(str(number).encode()) for number in range(5_000)]
    for digest in digests:
        bench.local._store.link(bench.repository, digest, Link(None, True, 1))
    await _catch_up(bench, shelf, seen)
    assert all(shelf.link(bench.repository, digest) for digest in digests)


async def test_changes__more_than_are_kept__everything_anew(bench: Bench) -> None:
    seen = (await _changes(bench, "")).seen
    for number in range(12_000):  # of two rows each: the repository's and its upstream's
        bench.local._store.link(bench.repository, Digest.of(str(number).encode()), Link(None, True, 1))
    assert (await _changes(bench, seen)).is_anew


async def test_changes__the_index_is_built_anew__everything_anew(bench: Bench) -> None:
    seen = (await _changes(bench, "")).seen
    bench.local._store.shelf.is_damaged = True
    bench.local._store.shelf.on_damage()
    async with asyncio.timeout(_SECONDS):
        while not (changes := await bench.hub.changes(seen)).is_anew:
            seen = changes.seen


# Siblings


async def test_sibling_blob__not_held__none_and_nothing_started(bench: Bench) -> None:
    digest = bench.push(_MIB)
    assert await bench.hub.sibling_blob("a", ["c"], digest) is None
    assert bench.upstream.counters.requests() == 0


async def test_sibling_blob__held__whole(bench: Bench) -> None:
    digest = bench.push(_MIB)
    await _hold(bench, digest)
    assert await bench.hub.sibling_blob("a", [], digest) == Whole(_MIB, CacheStatus(Outcome.HIT))


async def test_sibling_blob__on_its_way__where_to_follow_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.upstream.dials.blob_stall = _MIB // 2
    digest = bench.push(_MIB)
    own = await bench.hub.blob(bench.repository, digest)
    assert isinstance(own, Filling)
    monkeypatch.setattr(Supply, "chain", ("d",))
    found = await bench.hub.sibling_blob("a", ["c"], digest)
    assert isinstance(found, Filling)
    assert (found.path, found.size, found.chain) == (own.path, _MIB, ("d",))
    assert found.fill == bench.local._blobs._fills[own.fill].lent_number
    refused = await _refusal(bench.hub.sibling_blob("a", ["d"], digest))
    assert (refused.code, refused.retry_after) == (ErrorCode.UNAVAILABLE, 1)
    bench.upstream.release()
    await _follow(bench, found)


async def test_sibling_blob__not_confirmed_yet__ask_again(bench: Bench) -> None:
    bench.upstream.dials.latency = {"blob": 2.0}
    digest = bench.push(_MIB)
    own = asyncio.ensure_future(bench.hub.blob(bench.repository, digest))
    await eventually(lambda: bench.upstream.counters.requests(kind="blob") == 1)
    refused = await _refusal(bench.hub.sibling_blob("a", [], digest))
    assert (refused.code, refused.retry_after) == (ErrorCode.UNAVAILABLE, 0)
    await own


async def test_sibling_manifest__held_or_not__without_a_request(bench: Bench) -> None:
    image = bench.push_image(100)
    digest = Digest(image.index.digest)
    assert await bench.hub.sibling_manifest(bench.repository, digest) is None
    assert bench.upstream.counters.requests() == 0
    known = await bench.hub.manifest(bench.repository, Tag("1"))
    found = await bench.hub.sibling_manifest(Repository("elsewhere", "any"), digest)
    assert found is not None
    assert (found.digest, found.media_type, found.body) == (digest, known.media_type, known.body)


async def test_sibling_has__held_or_not__is_kept(bench: Bench) -> None:
    digest = bench.push(_MIB)
    assert await bench.hub.sibling_has(digest, 60) is False
    await _hold(bench, digest)
    # Its name is there, and may not be there to stay yet.
    await eventually(lambda: digest not in bench.local._store.naming)
    assert await bench.hub.sibling_has(digest, 60) is True
    assert bench.local._store.holds.is_held(digest)


async def test_changes__bring_what_the_replica_is_in_its_fleet(bench: Bench) -> None:
    changes = await _changes(bench, "")
    assert changes.membership is None
    membership = Membership("b", "boot", Secret("its secret"), 5.0, 3)
    bench.local._changes._membership = lambda: membership
    changes = await _changes(bench, changes.seen)
    assert changes.membership == membership
    assert "its secret" not in repr(changes)
    assert (await _changes(bench, "")).membership == membership
