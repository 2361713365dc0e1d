"""Four doors and a hub, each killed with -9 in the middle of many pulls. `CHAOS_KILLS=60` makes the long run of it."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from mirror.oci.digest import Digest
from mirror.store import Content
from tests.chaos.reader import Client, Reader, assert_nothing_wrong, get
from tests.chaos.scene import MIB, eventually
from tests.upstream import Image, Upstream
from tests.workers.family import Family, until

_KILLS = int(os.environ.get("CHAOS_KILLS", "12"))
_CLIENTS = 200
_SIZE = 4 * MIB
_RATE = 10 * MIB
_LATENCY = 0.04
_MOST_AGAIN = 16 * MIB


@pytest.fixture
def family(upstream: Upstream, tmp_path: Path) -> Iterator[Family]:
    with Family(tmp_path / "store", upstream, {"LAYOVER_SERVER__WORKERS": "4", "LAYOVER_LOG__LEVEL": "warning"}) as it:
        yield it
        assert it.replica.stop() == 0
        assert it.survivors() == set()
        assert_nothing_wrong(it.replica.store)
        assert "Traceback" not in it.replica.log.read_text()


def test_pull__200_clients_and_a_door_is_killed__its_connections_alone_are_lost(
    family: Family, upstream: Upstream
) -> None:
    image = upstream.push_image("library/crowd", "1", ["linux/amd64"], [10_000, _SIZE], raw=True)
    upstream.dials.blob_digests = {image.layers[1].digest}
    upstream.dials.blob_stall = _SIZE // 2
    clients = [Client(family.replica.url, image) for _ in range(_CLIENTS)]
    large = [_reader_of(client, image.layers[1].digest) for client in clients]
    eventually(lambda: min(reader.received for reader in large) >= MIB, "every client is in the middle of it")
    doors = family.doors_by_port()
    doors_of = [doors[_port(reader)] for reader in large]
    assert len(set(doors_of)) == 4
    victim = doors_of[0]
    os.kill(victim, signal.SIGKILL)
    _let_go(upstream, large)
    for client, door in zip(clients, doors_of, strict=True):
        client.wait()
        if door != victim:
            client.assert_whole()
    assert not any(reader.is_complete for reader, door in zip(large, doors_of, strict=True) if door == victim)
    until(family.is_whole, "another door took its place")
    assert victim not in family.doors
    Client(family.replica.url, image).wait().assert_whole()
    for blob in image.blobs:
        assert upstream.counters.overlaps(blob.digest) == 0, upstream.counters.spans(blob.digest)
        assert upstream.counters.sent(blob.digest) == blob.size, upstream.counters.spans(blob.digest)


def test_pull__the_hub_is_killed__nobody_fails_and_little_is_fetched_again(family: Family, upstream: Upstream) -> None:
    warm = upstream.push_image("library/warm", "1", ["linux/amd64"], [10_000, MIB], raw=True)
    cold = upstream.push_image("library/cold", "1", ["linux/amd64"], [10_000, 24 * MIB], raw=True)
    Client(family.replica.url, warm).wait().assert_whole()
    upstream.dials.latency = {"*": _LATENCY}
    upstream.dials.blob_rate = _RATE
    clients = [Client(family.replica.url, cold) for _ in range(20)]
    large = [_reader_of(client, cold.layers[1].digest) for client in clients]
    eventually(lambda: min(reader.received for reader in large) >= 6 * MIB, "every client is in the middle of it")
    hub, asked = family.hub, upstream.counters.requests("GET", digest=cold.layers[1].digest)
    assert hub is not None
    with _Warm(family, warm) as others:
        killed_at = time.monotonic()
        os.kill(hub, signal.SIGKILL)
        eventually(lambda: upstream.counters.requests("GET", digest=cold.layers[1].digest) > asked, "the fill goes on")
        back = time.monotonic() - killed_at
        for client in clients:
            client.wait()
            client.assert_whole()
    assert others.pulls > 0
    assert others.longest < 5, "who pulled what is whole waited for the hub"
    again = _fetched_again(upstream, cold.layers[1].digest)
    assert again <= _MOST_AGAIN
    figures = f"the fill went on after {back:.2f} s, {again / MIB:.1f} MiB were fetched again"
    print(f"{figures}; {others.pulls} warm pulls meanwhile, the longest took {others.longest:.3f} s")  # noqa: T201


def test_pull__hub_and_doors_are_killed_again_and_again(family: Family, upstream: Upstream) -> None:
    warm = upstream.push_image("library/warm", "1", ["linux/amd64"], [10_000, MIB], raw=True)
    cold = upstream.push_image("library/cold", "1", ["linux/amd64"], [10_000, 48 * MIB], raw=True)
    Client(family.replica.url, warm).wait().assert_whole()
    upstream.dials.blob_rate = _RATE
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    doors = 0
    with _Warm(family, warm, may_lose=True) as warm_pulls, _Warm(family, cold, may_lose=True) as cold_pulls:
        for number in range(_KILLS):
            time.sleep(moments.uniform(0.0, 0.8))  # also while it starts
            victims = [family.hub]
            if number % 3 == 0:
                victims.append(moments.choice(sorted(family.doors)))
                doors += 1
            for victim in victims:
                if victim is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
    assert max(warm_pulls.lost, cold_pulls.lost) <= doors, f"seed {seed}"
    until(family.is_whole, f"hub and doors are back; seed {seed}")
    upstream.dials.blob_rate = None
    for image in (warm, cold):
        Client(family.replica.url, image).wait().assert_whole()


def test_answer__503_in_bounded_time__while_there_is_no_hub(family: Family, upstream: Upstream) -> None:
    image = upstream.push_image("library/warm", "1", ["linux/amd64"], [10_000], raw=True)
    Client(family.replica.url, image).wait().assert_whole()
    content = Content(family.replica.store / "content")
    held = [Digest(each.digest) for each in (image.index, *image.manifests, *image.blobs)]
    eventually(lambda: all(content.size(digest) is not None for digest in held), "everything has its final name")
    hub = family.hub
    assert hub is not None
    os.kill(family.replica.pid, signal.SIGSTOP)
    try:
        os.kill(hub, signal.SIGKILL)
        asked_at = time.monotonic()
        unknown = [Reader(family.replica.url, f"/v2/library/other/manifests/{number}") for number in range(20)]
        with _Warm(family, image) as others:
            for reader in unknown:
                reader.wait(15)
        assert time.monotonic() - asked_at < 12
        assert {(reader.status, reader.headers["Retry-After"]) for reader in unknown} == {(503, "1")}
        assert others.pulls > 0
        assert others.longest < 3
    finally:
        os.kill(family.replica.pid, signal.SIGCONT)
    eventually(lambda: get(family.replica.url, "/v2/library/other/manifests/1").status == 404, "the hub is back")


class _Warm:
    """Pulls an image again and again while its context lasts; a pull that fails fails the test at its end.

    `may_lose` lets connections break, as those of a door that is killed do; what comes must be right nevertheless.
    """

    def __init__(self, family: Family, image: Image, *, may_lose: bool = False) -> None:
        self.pulls = 0
        self.lost = 0
        self.longest = 0.0
        self._url = family.replica.url
        part = image.platform("linux/amd64")
        base = f"/v2/{image.repository}"
        self._targets = [(f"{base}/manifests/{image.tag}", image.index.digest)]
        self._targets += [(f"{base}/manifests/{part.manifest.digest}", part.manifest.digest)]
        self._targets += [(f"{base}/blobs/{blob.digest}", blob.digest) for blob in part.blobs]
        self._may_lose = may_lose
        self._failed: list[Reader] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        for target, digest in itertools.cycle(self._targets):
            if self._end.is_set():
                return
            began = time.monotonic()
            reader = get(self._url, target)
            self.longest = max(self.longest, time.monotonic() - began)
            is_right = reader.status == 200 and reader.is_complete and reader.digest == digest
            is_lost = self._may_lose and not reader.is_complete
            self.lost += is_lost
            if not (is_right or is_lost):
                self._failed.append(reader)
            self.pulls += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(90)
        assert not self._thread.is_alive()
        assert not self._failed, self._failed[:3]


def _reader_of(client: Client, digest: str) -> Reader:
    """Return a client's reader of a blob, once it began."""

    def found() -> list[Reader]:
        return [reader for reader in client.readers if reader.target.endswith(digest)]

    eventually(lambda: bool(found()), "every client asks for the blob")
    return found()[0]


def _port(reader: Reader) -> int:
    assert reader._socket is not None
    port: int = reader._socket.getsockname()[1]
    return port


def _let_go(upstream: Upstream, readers: list[Reader]) -> None:
    """Let the upstream's stalled answers go on, those too that are only about to stall, until the readers end."""

    def have_ended() -> bool:
        upstream.release()
        return all(reader.has_ended for reader in readers)

    eventually(have_ended, "the readers have ended")


def _fetched_again(upstream: Upstream, digest: str) -> int:
    """Return how many bytes of a blob the registry sent more than once."""
    total, reached = 0, 0
    for start, end in sorted((span.start, span.end) for span in upstream.counters.spans(digest)):
        total += max(0, min(end, reached) - start)
        reached = max(reached, end)
    return total
