"""Stores on a file system that is too small or full."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.benchmarks.processes import MemoryWatch
from tests.chaos.filesystem import fill_up, small, use_up_names
from tests.chaos.reader import Client, Reader, assert_nothing_wrong, get
from tests.chaos.scene import KIB, MIB, TAIL, eventually
from tests.replica import Replica
from tests.upstream import Upstream

_CLIENTS = 50
_SIZE = 16 * MIB
_LARGE = 24 * MIB
_MOST_MEMORY = 250 * MIB
_UNSTORED = "layover; fwd=miss; detail=unstored"

Start = Callable[[], AbstractContextManager[Replica]]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small(tmp_path / "disk", _SIZE) as path:
        yield path


@pytest.fixture(params=["1", "2"], ids=["one process", "two doors"])
def start(request: pytest.FixtureRequest, disk: Path, upstream: Upstream, tmp_path: Path) -> Start:
    """Return what starts a replica that may take all of a small file system, its log elsewhere."""
    settings = {
        "LAYOVER_SERVER__WORKERS": request.param,
        "LAYOVER_STORE__MIN_FREE": "0B",
        "LAYOVER_STORE__SIZE": "100%",
    }

    @contextmanager
    def starting() -> Iterator[Replica]:
        replica = Replica(disk / "store", upstreams={"docker.io": upstream.url}, settings=settings)
        replica.log = tmp_path / "replica.log"
        with replica:
            yield replica
            assert replica.stop() == 0
        assert "Traceback" not in replica.log.read_text()

    return starting


def _assert_nothing_half_written(replica: Replica) -> None:
    eventually(lambda: not list((replica.store / "partial").iterdir()), "nothing is left half-written", 10)
    assert_nothing_wrong(replica.store)


def test_pull__larger_than_the_file_system__50_clients_are_streamed_through(start: Start, upstream: Upstream) -> None:
    image = upstream.push_image("library/large", "1", ["linux/amd64"], [10_000, _LARGE], raw=True)
    with start() as replica:
        with MemoryWatch(replica.pid) as memory:
            clients = [Client(replica.url, image) for _ in range(_CLIENTS)]
            for client in clients:
                client.wait()
                client.assert_whole()
                assert client.readers[-1].headers["Cache-Status"] == _UNSTORED
                assert client.readers[-1].headers["Content-Length"] == str(_LARGE)
        assert memory.peak < _MOST_MEMORY
        _assert_nothing_half_written(replica)


def test_pull__not_one_byte_is_left_before_the_start(start: Start, disk: Path, upstream: Upstream) -> None:
    image = upstream.push_image("library/full", "1", ["linux/amd64"], [10_000, 3 * MIB], raw=True)
    with start():
        pass
    (filler,) = fill_up(disk)
    with start() as replica:
        clients = [Client(replica.url, image) for _ in range(_CLIENTS)]
        for client in clients:
            client.wait()
            client.assert_whole()
            assert client.readers[-1].headers["Cache-Status"] == _UNSTORED
        Client(replica.url, image).wait().assert_whole()
        _assert_nothing_half_written(replica)
        filler.unlink()
        Client(replica.url, image).wait().assert_whole()
        fetched = upstream.counters.sent()
        Client(replica.url, image).wait().assert_whole()
        assert upstream.counters.sent() == fetched
        _assert_nothing_half_written(replica)
    upstream.pause()
    with start() as replica:
        Client(replica.url, image).wait().assert_whole()


def test_pull__the_file_system_fills_up_in_the_middle(start: Start, disk: Path, upstream: Upstream) -> None:
    size = 8 * MIB
    digest = upstream.push_random_blob("library/middle", size)
    target = f"/v2/library/middle/blobs/{digest}"
    upstream.dials.blob_stall = size // 2
    with start() as replica:
        readers = [Reader(replica.url, target) for _ in range(_CLIENTS)]
        for reader in readers:
            reader.wait_for(size // 2)
        (filler,) = fill_up(disk)
        upstream.dials.blob_stall = None
        upstream.release()
        for reader in readers:
            assert reader.wait().is_complete, reader
            assert reader.digest == digest
        assert get(replica.url, target).headers["Cache-Status"] == _UNSTORED
        _assert_nothing_half_written(replica)
        filler.unlink()
        assert get(replica.url, target).digest == digest
        _assert_nothing_half_written(replica)


def test_pull__it_fills_up_in_the_middle_of_what_was_corrupt__nobody_completes_it(
    start: Start, disk: Path, upstream: Upstream
) -> None:
    size = 8 * MIB
    digest = upstream.push_random_blob("library/corrupt", size)
    target = f"/v2/library/corrupt/blobs/{digest}"
    upstream.dials.blob_stall = size - MIB
    upstream.dials.blob_corrupt = True
    with start() as replica:
        readers = [Reader(replica.url, target).wait_for(size - MIB) for _ in range(4)]
        fill_up(disk)
        upstream.dials.blob_corrupt = False
        upstream.dials.blob_stall = None
        upstream.release()
        for reader in readers:
            assert not reader.wait().is_complete or reader.digest == digest, reader
        assert get(replica.url, target).digest == digest


def test_read_range__unstored(start: Start, disk: Path, upstream: Upstream) -> None:
    size = 4 * MIB
    digest = upstream.push_random_blob("library/ranges", size)
    target = f"/v2/library/ranges/blobs/{digest}"
    content = upstream.content(digest)
    with start() as replica:
        fill_up(disk)
        for asked, begin, end in (
            ("bytes=0-0", 0, 1),
            (f"bytes={MIB}-{MIB + 99}", MIB, MIB + 100),
            (f"bytes={size - TAIL - 50}-{size - TAIL + 49}", size - TAIL - 50, size - TAIL + 50),
            ("bytes=-100", size - 100, size),
            (f"bytes={size - 200 * KIB}-", size - 200 * KIB, size),
        ):
            part = get(replica.url, target, {"Range": asked})
            assert part.status in {200, 206}, part
            assert part.is_complete, part
            if part.status == 206:
                assert part.headers["Content-Range"] == f"bytes {begin}-{end - 1}/{size}"
                assert part.beginning == content[begin:end]
            else:
                assert part.digest == digest


def test_pull__unstored_and_corrupt__nobody_completes_it(start: Start, disk: Path, upstream: Upstream) -> None:
    sizes = {"announced": 3 * MIB, "chunked": 3 * MIB + 1, "close": TAIL}
    digests = {length: upstream.push_random_blob("library/bad", size) for length, size in sizes.items()}
    with start() as replica:
        fill_up(disk)
        upstream.dials.blob_corrupt = True
        for length, digest in digests.items():
            upstream.dials.blob_length = length  # type: ignore[assignment]
            readers = [Reader(replica.url, f"/v2/library/bad/blobs/{digest}") for _ in range(4)]
            for reader in readers:
                assert not (reader.wait().status == 200 and reader.is_complete), reader
                assert reader.status == 503 or reader.received <= max(0, sizes[length] - TAIL), reader
        eventually(
            lambda: replica.metric("layover_digest_mismatches_total", upstream="docker.io") == 12, "each was counted"
        )
        upstream.dials.blob_corrupt = False
        for digest in digests.values():
            assert get(replica.url, f"/v2/library/bad/blobs/{digest}").digest == digest


def test_pull__unstored_and_every_answer_is_cut(start: Start, disk: Path, upstream: Upstream) -> None:
    image = upstream.push_image("library/cut", "1", ["linux/amd64"], [10_000, 12 * MIB], raw=True)
    upstream.dials.blob_cut = 5 * MIB
    with start() as replica:
        fill_up(disk)
        Client(replica.url, image).wait().assert_whole()
        for blob in image.blobs:
            assert upstream.counters.sent(blob.digest) == blob.size
            assert upstream.counters.overlaps(blob.digest) == 0


def test_pull__unstored_and_the_upstream_stalls__all_but_the_tail_is_there(
    start: Start, disk: Path, upstream: Upstream
) -> None:
    size = 2 * MIB
    digest = upstream.push_random_blob("library/stalls", size)
    upstream.dials.blob_stall = MIB
    with start() as replica:
        fill_up(disk)
        reader = Reader(replica.url, f"/v2/library/stalls/blobs/{digest}").wait_for(MIB)
        assert reader.received == MIB
        upstream.release()
        assert reader.wait().digest == digest


@pytest.mark.parametrize("use_up", [fill_up, use_up_names], ids=["bytes", "names"])
def test_pull__unstored__a_repository_that_lacks_it_gets_no_link(
    start: Start, disk: Path, upstream: Upstream, use_up: Callable[[Path], list[Path]]
) -> None:
    digest = upstream.push_random_blob("library/has", MIB)
    upstream.push_random_blob("library/lacks", 10)
    with start() as replica:
        fillers = use_up(disk)
        assert get(replica.url, f"/v2/library/lacks/blobs/{digest}").status == 404
        for filler in fillers:
            filler.unlink()
        assert get(replica.url, f"/v2/library/has/blobs/{digest}").digest == digest
        assert get(replica.url, f"/v2/library/lacks/blobs/{digest}").status == 404


def test_pull__clients_leave__their_upstream_requests_end(start: Start, disk: Path, upstream: Upstream) -> None:
    size = 40 * MIB
    digest = upstream.push_random_blob("library/left", size)
    target = f"/v2/library/left/blobs/{digest}"
    upstream.dials.blob_rate = 4 * MIB
    with start() as replica:
        fill_up(disk)
        for reader in [Reader(replica.url, target).wait_for(MIB) for _ in range(8)]:
            reader.kill()
        eventually(lambda: _stands_still(upstream, digest), "the upstream sends no more", 10)
        assert upstream.counters.sent(digest) < 8 * size // 2


def _stands_still(upstream: Upstream, digest: str) -> bool:
    before = upstream.counters.sent(digest)
    time.sleep(0.5)
    return upstream.counters.sent(digest) == before
