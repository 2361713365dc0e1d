"""Whatever dies comes back, and takes nobody with it."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store import Content
from tests.upstream import Image, Upstream
from tests.workers.family import Family, is_alive, until

MIB = 2**20
SIZE = 6 * MIB


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def image(upstream: Upstream) -> Image:
    return upstream.push_image("library/app", "1", platforms=("linux/amd64",), layers=(SIZE,), raw=True)


@pytest.fixture
def family(upstream: Upstream, tmp_path: Path) -> Iterator[Family]:
    with Family(tmp_path / "store", upstream) as running:
        yield running


def targets(image: Image) -> list[tuple[str, str]]:
    """Return the path of everything in an image, with its digest."""
    base = f"/v2/{image.repository}"
    manifests = [(f"{base}/manifests/{each.digest}", each.digest) for each in (image.index, *image.manifests)]
    blobs = [(f"{base}/blobs/{each.digest}", each.digest) for each in image.blobs]
    return [(f"{base}/manifests/{image.tag}", image.index.digest), *manifests, *blobs]


def pull(family: Family, image: Image) -> None:
    for path, digest in targets(image):
        status, body = family.get(path)
        assert status == 200, (path, body[:300])
        assert Digest.of(body) == digest


class Download:
    """A blob on its way to a client, read in a thread of its own."""

    def __init__(self, family: Family, image: Image) -> None:
        blob = image.layers[0]
        self._expected = blob.digest
        self._hash = hashlib.sha256()
        self.received = 0
        self.broken: Exception | None = None
        connection = family.connect()
        connection.request("GET", f"/v2/{image.repository}/blobs/{blob.digest}")
        self.door = family.door_of(connection)
        self._answer = connection.getresponse()
        assert self._answer.status == 200
        self._connection = connection
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def is_right(self) -> bool:
        """Whether it ended with the right digest; waits for its end."""
        self._thread.join(60)
        assert not self._thread.is_alive(), "the download is stuck"
        return self.broken is None and f"sha256:{self._hash.hexdigest()}" == self._expected

    @property
    def has_ended(self) -> bool:
        """Whether it ended, well or not."""
        return not self._thread.is_alive()

    def _read(self) -> None:
        try:
            while piece := self._answer.read1(65536):
                self._hash.update(piece)
                self.received += len(piece)
        except (OSError, http.client.HTTPException) as error:
            self.broken = error
        finally:
            self._connection.close()


def release(upstream: Upstream, *downloads: Download) -> None:
    """Let the upstream's stalled answers go on, those too that are only about to stall, until the downloads end."""

    def have_ended() -> bool:
        upstream.release()
        return all(each.has_ended for each in downloads)

    until(have_ended, "the downloads have ended")


class TestTogether:
    def test_pull__cold_and_warm_and_with_the_upstream_gone(
        self, family: Family, image: Image, upstream: Upstream
    ) -> None:
        pull(family, image)
        asked = len(upstream.counters.headers)
        pull(family, image)
        assert len(upstream.counters.headers) == asked
        assert all(upstream.counters.requests("GET", digest=each.digest) == 1 for each in image.blobs)
        upstream.pause()
        pull(family, image)

    def test_count__as_one(self, family: Family, image: Image) -> None:
        pull(family, image)
        per_pull = len(targets(image))
        for _ in range(9):
            pull(family, image)
        until(
            lambda: family.replica.metric("layover_requests_total", upstream="docker.io") == 10 * per_pull,
            "what both doors counted adds up",
        )
        assert family.replica.metric("layover_upstream_bytes_total") >= image.size

    def test_count__never_backwards__though_hub_and_doors_die(self, family: Family, image: Image) -> None:
        pull(family, image)
        counted = {"layover_requests_total": float(len(targets(image))), "layover_upstream_requests_total": 1.0}

        def shows(least: dict[str, float]) -> bool:
            try:
                found = {name: family.replica.metric(name, upstream="docker.io") for name in least}
            except OSError:
                return False  # the hub is away
            assert all(found[name] >= shown.get(name, 0.0) for name in found), (found, shown)
            shown.update(found)
            return all(found[name] >= value for name, value in least.items())

        shown: dict[str, float] = {}
        until(lambda: shows(counted), "what doors and hub counted is shown")
        for _ in range(3):
            for victim in (min(family.doors), family.hub):
                assert victim is not None
                os.kill(victim, signal.SIGKILL)
                until(lambda: shows(dict(shown)) and family.is_whole(), "another took its place")
            pull(family, image)
            counted["layover_requests_total"] += len(targets(image))
            until(lambda: shows(counted), "nothing is lost")
        assert shown["layover_requests_total"] == counted["layover_requests_total"]

    def test_count__what_was_answered_just_now(self, family: Family, image: Image) -> None:
        for number in range(5):
            pull(family, image)
            counted = family.replica.metric("layover_requests_total", upstream="docker.io")
            assert counted == (number + 1) * len(targets(image))

    def test_remember_last_use(self, family: Family, image: Image) -> None:
        pull(family, image)
        content = Content(family.replica.store / "content")
        paths = [Path(content.path(Digest(blob.digest))) for blob in image.blobs]
        until(lambda: all(path.exists() for path in paths), "every blob has its final name")
        for path in paths:
            os.utime(path, (1_000, 1_000))
        pull(family, image)
        assert family.replica.stop() == 0
        assert all(path.stat().st_atime > 1_000_000_000 for path in paths)


class TestDoor:
    def test_that_is_killed__takes_its_own_streams_alone(
        self, family: Family, image: Image, upstream: Upstream
    ) -> None:
        upstream.dials.blob_stall = 2 * MIB
        downloads = [Download(family, image)]
        while len({each.door for each in downloads}) < 2:
            assert len(downloads) < 100
            downloads.append(Download(family, image))
        until(lambda: all(each.received >= MIB for each in downloads), "every download is on its way")
        victim = downloads[0].door
        os.kill(victim, signal.SIGKILL)
        release(upstream, *downloads)
        assert [each.is_right for each in downloads] == [each.door != victim for each in downloads]
        until(family.is_whole, "another door took its place")
        assert victim not in family.children
        pull(family, image)
        assert upstream.counters.spans(image.layers[0].digest) == [(0, SIZE)]


class TestHub:
    def test_that_is_killed__comes_back_and_readers_end_well(
        self, family: Family, image: Image, upstream: Upstream
    ) -> None:
        hub = family.hub
        assert hub is not None
        size = image.layers[0].size
        upstream.dials.blob_stall, upstream.dials.blob_stall_times = 4 * MIB, 1
        downloads = [Download(family, image) for _ in range(4)]
        until(lambda: all(each.received >= 3 * MIB for each in downloads), "every download is on its way")
        os.kill(hub, signal.SIGKILL)
        assert all(each.is_right for each in downloads)
        until(family.is_whole, "another hub took its place")
        assert family.hub != hub
        (first, second) = upstream.counters.spans(image.layers[0].digest)
        assert first.start == 0
        assert second.start >= 2 * MIB
        assert second.end == size
        pull(family, image)

    def test_that_is_killed__again_and_again(self, family: Family, image: Image, upstream: Upstream) -> None:
        upstream.dials.blob_stall = MIB
        download = Download(family, image)
        for _ in range(4):
            hub = family.hub
            asked = upstream.counters.requests("GET", kind="blob")
            assert hub is not None
            os.kill(hub, signal.SIGKILL)
            until(lambda hub=hub: family.hub not in {None, hub}, "another hub took its place")  # type: ignore[misc]
            until(
                lambda asked=asked: upstream.counters.requests("GET", kind="blob") > asked,  # type: ignore[misc]
                "the blob is asked for again",
            )
        upstream.reset()
        release(upstream, download)
        assert download.is_right

    def test_that_hangs__is_not_needed_for_what_is_held(self, family: Family, image: Image) -> None:
        pull(family, image)
        asked = len(targets(image))
        until(lambda: family.replica.metric("layover_requests_total", upstream="docker.io") == asked, "doors reported")
        until(lambda: family.replica.metric("layover_fills_active") == 0, "every fill has ended")
        hub = family.hub
        assert hub is not None
        os.kill(hub, signal.SIGSTOP)
        try:
            pull(family, image)
        finally:
            os.kill(hub, signal.SIGCONT)

    def test_that_is_killed__costs_no_more_than_a_second_or_so(self, family: Family, image: Image) -> None:
        hub = family.hub
        assert hub is not None
        os.kill(hub, signal.SIGKILL)
        pull(family, image)


class TestEnd:
    def test_comes_to_all__when_the_parent_is_asked(self, family: Family, image: Image) -> None:
        pull(family, image)
        children = family.children
        assert len(children) == 3
        assert family.replica.stop() == 0
        assert not any(is_alive(pid) for pid in children)
        assert "Traceback" not in family.replica.log.read_text()

    def test_waits__for_streams_that_are_on_their_way(self, family: Family, image: Image, upstream: Upstream) -> None:
        upstream.dials.blob_stall = 2 * MIB
        download = Download(family, image)
        until(lambda: download.received >= MIB, "the download is on its way")
        os.kill(family.replica.pid, signal.SIGTERM)
        until(lambda: not family.answers(), "no new connection is accepted")
        release(upstream, download)
        assert download.is_right
        assert family.wait() == 0
        assert family.survivors() == set()

    def test_does_not_wait__beyond_the_grace(self, image: Image, upstream: Upstream, tmp_path: Path) -> None:
        upstream.dials.blob_stall = 2 * MIB
        settings = {"LAYOVER_SERVER__SHUTDOWN_GRACE": "500ms"}
        with Family(tmp_path / "store", upstream, settings) as family:
            download = Download(family, image)
            until(lambda: download.received >= MIB, "the download is on its way")
            assert family.replica.stop(20) == 0
            assert not download.is_right
            assert family.survivors() == set()
        upstream.reset()
        with Family(tmp_path / "store", upstream) as family:
            pull(family, image)
            (first, second) = upstream.counters.spans(image.layers[0].digest)
            assert first.end <= second.start + MIB
            assert second.start >= MIB

    def test_comes_to_all__when_the_parent_is_killed(self, family: Family, image: Image) -> None:
        pull(family, image)
        children = family.children
        os.kill(family.replica.pid, signal.SIGKILL)
        until(lambda: not any(is_alive(pid) for pid in children), "the children have ended too")
