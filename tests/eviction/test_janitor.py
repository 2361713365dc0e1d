"""A replica alone, of which much more is pulled than its store may take."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos.filesystem import fill_up, small
from tests.chaos.scene import eventually
from tests.eviction.scene import KIB, MIB, begin, evictions, is_held, pull, push, replica, taken
from tests.replica import Replica
from tests.upstream import Upstream

_SIZE = 24 * MIB
_BLOB = MIB + 1234
_UNSTORED = "detail=unstored"
_SETTINGS = {"LAYOVER_STORE__SIZE": f"{_SIZE}B", "LAYOVER_STORE__MIN_FREE": "0B"}


@contextmanager
def watched(running: Replica) -> Iterator[list[int]]:
    """Look at what the store takes again and again."""
    seen: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            seen.append(taken(running.store))
            seen.append(int(running.metric("layover_store_bytes")))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("workers", ["1", "2"], ids=["one process", "two doors"])
def test_keeps_the_mark__while_much_more_is_pulled(tmp_path: Path, registry: Upstream, workers: str) -> None:
    blobs = [push(registry, number, _BLOB) for number in range(120)]
    large = push(registry, 1000, 12 * MIB)  # more than the kernel keeps for a client that does not read
    store = tmp_path / "store"
    with replica(store, registry, {**_SETTINGS, "LAYOVER_SERVER__WORKERS": workers}) as running:
        slow = begin(running, large)
        slow.wait_for(64 * KIB)
        slow.hold()
        eventually(lambda: is_held(store, large), "the coldest of all, and too large for what is protected", 30)
        time.sleep(1.5)  # a door of another process tells every second what it reads
        with watched(running) as seen, ThreadPoolExecutor(6) as clients:
            readers = list(clients.map(lambda digest: pull(running, digest), blobs))
        assert [reader.digest for reader in readers] == blobs
        unstored = [reader for reader in readers if _UNSTORED in reader.headers["Cache-Status"]]
        assert not unstored, len(unstored)
        assert max(seen) <= _SIZE, max(seen)
        assert is_held(store, large), "what is being read went"
        slow.go_on()
        assert slow.wait().digest == large
        # What was answered may still be getting its name, and the janitor be at work.
        eventually(lambda: running.metric("layover_store_bytes") == taken(store), "all is counted", 10)
        went = evictions(store)
        assert len(went) >= 120 - 24
        assert running.metric("layover_evictions_total", reason="pressure") == len(went)
        assert running.metric("layover_evicted_bytes_total", reason="pressure") == sum(each["size"] for each in went)
        assert running.metric("layover_store_objects", kind="blob") == sum(
            is_held(store, each) for each in [*blobs, large]
        )
        # What went can be had again.
        gone = next(each["digest"] for each in went if not is_held(store, each["digest"]))
        assert pull(running, gone).digest == gone
        assert running.stop() == 0
    assert "Traceback" not in running.log.read_text()


def test_keeps_what_is_used_most__also_over_a_restart(tmp_path: Path, registry: Upstream) -> None:
    popular = [push(registry, number, _BLOB) for number in range(2000, 2008)]
    store = tmp_path / "store"
    with replica(store, registry, _SETTINGS) as running:
        for _ in range(5):
            for digest in popular:
                assert pull(running, digest).digest == digest
        assert running.stop() == 0
    with replica(store, registry, _SETTINGS) as running:
        registry.counters.clear()
        for number in range(2100, 2180):
            pull(running, push(registry, number, _BLOB))
        held = [is_held(store, digest) for digest in popular]
        assert sum(held) >= 7, held  # the fifth that is protected has four of them
        assert Counter(each["reason"] for each in evictions(store)).keys() == {"pressure"}


def test_lets_go__what_was_not_used_for_long(tmp_path: Path, registry: Upstream) -> None:
    image = registry.push_image("library/unused", "1", ["linux/amd64"], [10_000, 20_000], raw=True)
    digest = push(registry, 3000, _BLOB)
    store = tmp_path / "store"
    with replica(store, registry, {"LAYOVER_STORE__UNUSED_FOR": "3s"}) as running:
        assert pull(running, digest).digest == digest
        manifest = running.url + "/v2/library/unused/manifests/1"
        for _ in range(12):  # four seconds and more of use
            assert _status(manifest) == 200
            time.sleep(0.4)
        eventually(lambda: not is_held(store, digest), "the unused one has gone", 20)
        assert is_held(store, image.index.digest)
        (gone,) = evictions(store)
        assert (gone["digest"], gone["reason"], gone["copies"]) == (digest, "unused", None)
        eventually(lambda: not is_held(store, image.index.digest), "the manifest has gone too", 20)
        eventually(lambda: running.metric("layover_store_objects") == 0, "nothing is left", 10)
        assert running.metric("layover_store_bytes") == taken(store) == 0
        registry.counters.clear()
        assert _status(manifest) == 200
        assert registry.counters.requests(kind="manifest") == registry.counters.requests("GET", "manifest") == 1


def test_clears_abandoned_partial_files__oldest_first(tmp_path: Path, registry: Upstream) -> None:
    store = tmp_path / "store"
    large = [push(registry, number, 6 * MIB) for number in (4000, 4001)]
    with replica(store, registry, _SETTINGS) as running:
        for digest in large:
            registry.dials.blob_rate = MIB
            begin(running, digest).wait_for(MIB)
        running.kill()
    registry.reset()
    left = taken(store)
    assert left > MIB
    with replica(store, registry, _SETTINGS) as running:
        assert running.metric("layover_store_bytes") > MIB
        for number in range(4100, 4150):
            assert _UNSTORED not in pull(running, push(registry, number, _BLOB)).headers["Cache-Status"]
        assert taken(store) <= _SIZE


def test_makes_room__on_a_file_system_that_others_filled(tmp_path: Path, registry: Upstream) -> None:
    with small(tmp_path / "disk", 32 * MIB) as disk:
        store = disk / "store"
        settings = {"LAYOVER_STORE__SIZE": "100%", "LAYOVER_STORE__MIN_FREE": "0B"}
        with replica(store, registry, settings) as running:
            running.log = tmp_path / "log"
            for number in range(5000, 5008):
                pull(running, push(registry, number, _BLOB))
            fill_up(disk)
            for number in range(5100, 5140):
                digest = push(registry, number, _BLOB)
                assert pull(running, digest).digest == digest
            eventually(lambda: running.metric("layover_evictions_total", reason="pressure") > 0, "something went", 10)
            assert running.stop() == 0


def _status(url: str) -> int:
    with urllib.request.urlopen(url, timeout=30) as answer:
        answer.read()
        return int(answer.status)
