"""kill -9 at random moments. `CHAOS_KILLS=30` makes the long run of it: 8 MiB of blob and one kill at a time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.store.segments import Segments
from tests.benchmarks.processes import tree
from tests.chaos.reader import Client, Reader, assert_nothing_wrong, get
from tests.chaos.scene import KIB, MIB, TAIL, eventually
from tests.replica import Replica
from tests.upstream import Image, Upstream

_KILLS = int(os.environ.get("CHAOS_KILLS", "8"))
_MOST_AGAIN = 16 * MIB
_RATE = 10 * MIB
_LATENCY = 0.04


def _fetched_again(upstream: Upstream, digest: str) -> list[int]:
    """Return how many bytes each answer sent that answers before it had sent already."""
    again, sent = [], Segments()
    for start, end in upstream.counters.spans(digest):
        before = sent.total
        sent.add(start, end)
        again.append(end - start - (sent.total - before))
    return again


def _assert_prefix(reader: Reader, content: bytes, what: object) -> None:
    expected = f"sha256:{hashlib.sha256(memoryview(content)[: reader.received]).hexdigest()}"
    assert reader.digest == expected, (what, reader)


def test_pull__the_replica_is_killed_again_and_again(upstream: Upstream, tmp_path: Path) -> None:
    size = max(1, _KILLS) * 8 * MIB
    image = upstream.push_image("library/killed", "1", ["linux/amd64"], [10_000, size], raw=True)
    layer = image.layers[1].digest
    target, content = f"/v2/{image.repository}/blobs/{layer}", upstream.content(layer)
    upstream.dials.latency = {"*": _LATENCY}
    upstream.dials.blob_rate_total = _RATE
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    replica = Replica(tmp_path / "store", upstreams={"docker.io": upstream.url})
    try:
        for kill in range(_KILLS):
            replica.start()
            assert_nothing_wrong(replica.store)
            client = Client(replica.url, image)
            inside = get(replica.url, target, {"Range": "bytes=0-65535"})
            assert inside.beginning == content[: 64 * KIB]
            time.sleep(moments.uniform(0.05, 1.2 * size / _RATE / _KILLS))
            replica.kill()
            client.wait()
            for reader in client.readers:
                if reader.target == target:
                    _assert_prefix(reader, content, (seed, kill))
        replica.start()
        client = Client(replica.url, image).wait()
        client.assert_whole()
        again = _fetched_again(upstream, layer)
        assert len(again) > 1, f"seed {seed}: no kill fell into the pull"
        assert sum(again) <= _KILLS * _MOST_AGAIN, f"seed {seed}: {again}"
        print(f"seed {seed}, fetched again, in KiB: {[each // KIB for each in again]}")  # noqa: T201
        assert replica.stop() == 0
        assert_nothing_wrong(replica.store)
        assert list((replica.store / "partial").iterdir()) == []
    finally:
        replica.kill()


@pytest.mark.timeout(300)
def test_pull__killed_while_blobs_get_their_final_names(upstream: Upstream, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    replica = Replica(tmp_path / "store", upstreams={"docker.io": upstream.url})
    images: list[Image] = []
    try:
        for kill in range(_KILLS):
            image = upstream.push_image("library/small", f"{kill}", ["linux/amd64"], [200_000] * 10, kill, raw=True)
            images.append(image)
            replica.start()
            client = Client(replica.url, image)
            time.sleep(moments.uniform(0.0, 0.08))
            replica.kill()
            client.wait()
            assert_nothing_wrong(replica.store)
            replica.start()
            Client(replica.url, image).wait().assert_whole()
            replica.kill()
        replica.start()
        for image in images:
            Client(replica.url, image).wait().assert_whole()
        assert replica.stop() == 0
        assert_nothing_wrong(replica.store)
        assert list((replica.store / "partial").iterdir()) == [], f"seed {seed}"
    finally:
        replica.kill()


def test_stop__in_the_middle_of_a_fill__it_goes_on_where_it_was(upstream: Upstream, tmp_path: Path) -> None:
    size = 40 * MIB
    digest = upstream.push_random_blob("library/stopped", size)
    target = f"/v2/library/stopped/blobs/{digest}"
    upstream.dials.blob_rate_total = _RATE
    settings = {"LAYOVER_SERVER__SHUTDOWN_GRACE": "100ms"}
    replica = Replica(tmp_path / "store", upstreams={"docker.io": upstream.url}, settings=settings)
    try:
        replica.start()
        reader = Reader(replica.url, target).wait_for(size // 5)
        began = time.monotonic()
        assert replica.stop() == 0
        assert time.monotonic() - began < 5
        assert not reader.wait().is_complete
        fetched = upstream.counters.sent(digest)
        replica.start()
        after = get(replica.url, target)
        assert after.is_complete, after
        assert after.digest == digest
        assert fetched >= size // 5
        assert sum(_fetched_again(upstream, digest)) <= _MOST_AGAIN
        assert replica.stop() == 0
        assert list((replica.store / "partial").iterdir()) == []
    finally:
        replica.kill()


def test_stop__a_long_grace__the_reader_gets_everything(upstream: Upstream, tmp_path: Path) -> None:
    size = 12 * MIB
    digest = upstream.push_random_blob("library/graceful", size)
    upstream.dials.blob_rate_total = _RATE
    for workers in ("1", "2"):
        store = tmp_path / f"store{workers}"
        settings = {"LAYOVER_SERVER__WORKERS": workers}
        with Replica(store, upstreams={"docker.io": upstream.url}, settings=settings) as replica:
            reader = Reader(replica.url, f"/v2/library/graceful/blobs/{digest}").wait_for(size // 3)
            assert replica.stop() == 0
            assert reader.wait().is_complete, reader
            assert reader.digest == digest


def test_stop__just_after_a_pull__it_is_held(upstream: Upstream, tmp_path: Path) -> None:
    replica = Replica(tmp_path / "store", upstreams={"docker.io": upstream.url})
    try:
        for number in range(6):
            digest = upstream.push_random_blob("library/held", 3 * MIB, number)
            replica.start()
            assert get(replica.url, f"/v2/library/held/blobs/{digest}").digest == digest
            assert replica.stop() == 0
            algorithm, _, name = digest.partition(":")
            assert (replica.store / "content" / algorithm / name[:2] / name).exists()
    finally:
        replica.kill()


def test_pull__the_hub_is_killed_in_the_middle__its_readers_get_everything(doors: Replica, upstream: Upstream) -> None:
    size = 8 * MIB
    digests = [upstream.push_random_blob("library/hubless", size, number) for number in range(4)]
    upstream.dials.blob_rate_total = _RATE
    readers = [Reader(doors.url, f"/v2/library/hubless/blobs/{digest}") for digest in digests * 2]
    for reader in readers:
        reader.wait_for(size // 3)
    os.kill(_hub_of(doors), signal.SIGKILL)
    for reader, digest in zip(readers, digests * 2, strict=True):
        assert reader.wait().is_complete, reader
        assert reader.digest == digest
    assert max(sum(_fetched_again(upstream, digest)) for digest in digests) <= _MOST_AGAIN
    assert_nothing_wrong(doors.store)
    eventually(lambda: not list((doors.store / "partial").iterdir()), "nothing is left half-written")


def test_pull__a_slow_reader_outlives_the_hub__it_is_not_taken_for_another(doors: Replica, upstream: Upstream) -> None:
    """The hub that comes back counts its fills anew: the number that the reader knows is that of another blob."""
    size, sent = 24 * MIB, 8 * MIB
    mine = upstream.push_random_blob("library/slow", size)
    other = f"/v2/library/slow/blobs/{upstream.push_random_blob('library/slow', 2 * TAIL)}"
    upstream.dials.blob_rate_total = 4 * MIB
    slow = Reader(doors.url, f"/v2/library/slow/blobs/{mine}")
    slow.hold()
    eventually(lambda: upstream.counters.sent(mine) >= sent, "it is in the middle of it")
    os.kill(_hub_of(doors), signal.SIGKILL)
    eventually(lambda: get(doors.url, other).status == 200, "the hub is back")
    slow.go_on()
    slow.wait_for(sent)
    upstream.reset()
    assert slow.wait().is_complete, slow
    assert slow.digest == mine
    assert sum(_fetched_again(upstream, mine)) <= _MOST_AGAIN


def test_pull__the_hub_does_not_answer__doors_serve_what_is_held(doors: Replica, upstream: Upstream) -> None:
    image = upstream.push_image("library/hubless", "1", ["linux/amd64"], [10_000, MIB])
    Client(doors.url, image).wait().assert_whole()
    blob = f"/v2/library/hubless/blobs/{image.layers[1].digest}"
    for _ in range(20):
        get(doors.url, blob)
    # A door looks for the index just before it reports: both have by the time that all of these are counted.
    eventually(lambda: doors.metric("layover_requests_total", kind="blob") == 23, "both doors have reported")
    hub = _hub_of(doors)
    os.kill(hub, signal.SIGSTOP)
    try:
        for _ in range(20):
            assert get(doors.url, blob, seconds=5).digest == image.layers[1].digest
            assert get(doors.url, "/v2/library/hubless/manifests/1", seconds=5).digest == image.index.digest
    finally:
        os.kill(hub, signal.SIGCONT)


def test_kill__the_parent_alone__its_doors_and_its_hub_end_too(upstream: Upstream, tmp_path: Path) -> None:
    settings = {"LAYOVER_SERVER__WORKERS": "2"}
    replica = Replica(tmp_path / "store", upstreams={"docker.io": upstream.url}, settings=settings).start()
    children = tree(replica.pid)[1:]
    assert len(children) == 3
    try:
        replica.kill()
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "they end", 30)
        replica.start()
        assert replica.stop() == 0
    finally:
        replica.kill()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def doors(upstream: Upstream, tmp_path: Path) -> Iterator[Replica]:
    """Run a replica with two doors in processes of their own."""
    settings = {"LAYOVER_SERVER__WORKERS": "2"}
    with Replica(tmp_path / "store", upstreams={"docker.io": upstream.url}, settings=settings) as replica:
        yield replica
        assert replica.stop() == 0


def _hub_of(replica: Replica) -> int:
    """Return the process that holds the store's lock."""
    inode = (replica.store / "lock").stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
            return int(fields[4])
    raise AssertionError("nobody holds the store's lock")
