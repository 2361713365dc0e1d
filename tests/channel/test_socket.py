"""What only the Unix socket can do: be lost, and carry nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import pytest

from mirror.channel import (
    BlobFound,
    Changes,
    Filling,
    HubServer,
    Listing,
    ManifestFound,
    Progress,
    RemoteHub,
    Stream,
    Whole,
)
from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.observe.metrics import Sample
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Reference, Repository, Tag
from mirror.oci.use import Use
from tests.channel.conftest import eventually

_REPOSITORY = Repository("docker.io", "library/any")
_DIGEST = Digest.of(b"any")
_SECONDS = 10.0
_CHUNK = 256 * 2**10


class _Endless:
    """A stream of zeros that never ends."""

    size: int | None = None

    def __init__(self) -> None:
        self.is_closed = False

    async def read(self) -> bytes:
        return bytes(_CHUNK)

    async def close(self) -> None:
        self.is_closed = True


class _Stub:
    """A hub that keeps its callers waiting, or fails in ways that it should not."""

    def __init__(self) -> None:
        self.waiting = 0
        self.end = 0
        self.streams: list[_Endless] = []

    async def manifest(self, repository: Repository, reference: Reference) -> ManifestFound:
        raise RuntimeError("a defect")

    async def pulled(self, repository: Repository, digest: Digest) -> None:
        raise RuntimeError("a defect")

    async def blob(self, repository: Repository, digest: Digest) -> Whole:
        return Whole(1, CacheStatus(Outcome.HIT))

    async def blob_size(self, repository: Repository, digest: Digest) -> BlobFound:
        raise OSError(28, "no space left on device")

    async def progress(self, fill: int, offset: int) -> Progress:
        if offset >= self.end:
            await self._wait()
        return Progress(self.end)

    async def stream(self, repository: Repository, digest: Digest, start: int) -> Stream:
        self.streams.append(_Endless())
        return self.streams[-1]

    async def tags(self, repository: Repository, query: str) -> Listing:
        await self._wait()
        raise RegistryError(ErrorCode.NAME_UNKNOWN, "never reached")

    async def referrers(self, repository: Repository, digest: Digest, query: str) -> Listing:
        return Listing(bytes(40 * 2**20), "application/json", CacheStatus(Outcome.MISS))

    async def sibling_blob(self, asker: str, followers: Sequence[str], digest: Digest) -> Whole | Filling | None:
        return None

    async def sibling_manifest(self, repository: Repository, digest: Digest) -> ManifestFound | None:
        return None

    async def sibling_has(self, digest: Digest, seconds: float) -> bool:
        return False

    async def report(self, door: str, samples: Sequence[Sample], used: Mapping[Digest, Use]) -> None:
        return

    async def changes(self, seen: str) -> Changes:
        return Changes(seen, {})

    async def _wait(self) -> None:
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1


@pytest.fixture
def stub() -> _Stub:
    return _Stub()


@pytest.fixture
async def server(stub: _Stub, tmp_path: Path) -> AsyncIterator[HubServer]:
    server = HubServer(stub, tmp_path / "hub")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def remote(server: HubServer, tmp_path: Path) -> AsyncIterator[RemoteHub]:
    remote = RemoteHub(tmp_path / "hub")
    yield remote
    await remote.close()


async def _until(stub: _Stub, waiting: int) -> None:
    await eventually(lambda: stub.waiting == waiting)


async def test_lose__the_hub_ends__waiting_calls_end_with_an_error(
    stub: _Stub, server: HubServer, remote: RemoteHub
) -> None:
    calls = [asyncio.ensure_future(remote.tags(_REPOSITORY, "")) for _ in range(20)]
    following = asyncio.ensure_future(remote.progress(1, 7))
    await _until(stub, 21)
    await server.stop()
    for call in calls:
        with pytest.raises(RegistryError) as caught:
            await asyncio.wait_for(call, _SECONDS)
        assert (caught.value.code, caught.value.failure) == (ErrorCode.UNAVAILABLE, Failure.RESET)
        assert caught.value.retry_after is not None
    assert await asyncio.wait_for(following, _SECONDS) == Progress(7, is_forgotten=True)
    await server.start()


async def test_lose__the_hub_comes_back__calls_are_answered(server: HubServer, remote: RemoteHub) -> None:
    assert await remote.blob(_REPOSITORY, _DIGEST) == Whole(1, CacheStatus(Outcome.HIT))
    await server.stop()
    asked = [asyncio.ensure_future(remote.blob(_REPOSITORY, _DIGEST)) for _ in range(20)]
    await asyncio.sleep(0)
    await server.start()
    for each in asked:
        assert await asyncio.wait_for(each, _SECONDS) == Whole(1, CacheStatus(Outcome.HIT))


async def test_lose__another_hub_is_there__what_the_first_said_of_fills_is_not_believed(
    stub: _Stub, server: HubServer, remote: RemoteHub
) -> None:
    stub.end = 100
    assert await remote.progress(1, 0) == Progress(100)
    await server.stop()
    stub.end = 0
    await server.start()
    await remote.blob(_REPOSITORY, _DIGEST)
    following = asyncio.ensure_future(remote.progress(1, 50))
    await _until(stub, 1)
    following.cancel()
    await _until(stub, 0)


async def test_lose__there_is_no_hub__an_error_within_seconds(tmp_path: Path) -> None:
    remote = RemoteHub(tmp_path / "nobody")
    calls = [remote.blob(_REPOSITORY, _DIGEST) for _ in range(20)]
    answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 8)
    assert all(isinstance(each, RegistryError) and each.code is ErrorCode.UNAVAILABLE for each in answers), answers
    await remote.close()


async def test_lose__a_stream_of_a_hub_that_ended__an_error(server: HubServer, remote: RemoteHub) -> None:
    stream = await remote.stream(_REPOSITORY, _DIGEST, 0)
    await stream.read()
    await server.stop()
    await server.start()
    with pytest.raises(RegistryError) as caught:
        await asyncio.wait_for(stream.read(), _SECONDS)
    assert caught.value.code is ErrorCode.UNAVAILABLE
    await stream.close()


async def test_lose__the_door_goes__what_it_waited_for_ends(stub: _Stub, remote: RemoteHub) -> None:
    calls = [asyncio.ensure_future(remote.tags(_REPOSITORY, "")) for _ in range(5)]
    await remote.stream(_REPOSITORY, _DIGEST, 0)
    await _until(stub, 5)
    await remote.close()
    await _until(stub, 0)
    await eventually(lambda: stub.streams[0].is_closed)
    assert all(isinstance(each, RegistryError) for each in await asyncio.gather(*calls, return_exceptions=True))


async def test_cancel__the_hub_hears_of_it(stub: _Stub, remote: RemoteHub) -> None:
    calls = [asyncio.ensure_future(remote.tags(_REPOSITORY, "")) for _ in range(5)]
    await _until(stub, 5)
    for call in calls[1:]:
        call.cancel()
    await _until(stub, 1)
    calls[0].cancel()
    await _until(stub, 0)


@pytest.mark.parametrize("method", ["manifest", "blob_size", "referrers"])
async def test_answer__the_hub_has_a_defect__an_error_and_no_hang(remote: RemoteHub, method: str) -> None:
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "manifest": lambda: remote.manifest(_REPOSITORY, Tag("1")),
        "blob_size": lambda: remote.blob_size(_REPOSITORY, _DIGEST),
        "referrers": lambda: remote.referrers(_REPOSITORY, _DIGEST, ""),  # a frame that is too long
    }
    with pytest.raises(RegistryError) as caught:
        await asyncio.wait_for(calls[method](), _SECONDS)
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert await asyncio.wait_for(remote.blob(_REPOSITORY, _DIGEST), _SECONDS) == Whole(1, CacheStatus(Outcome.HIT))


async def test_read__many_streams_at_once__memory_stays_flat(remote: RemoteHub) -> None:
    async def one() -> None:
        stream = await remote.stream(_REPOSITORY, _DIGEST, 0)
        for _ in range(100):
            await stream.read()
        await stream.close()

    await one()
    before = _resident()
    await asyncio.gather(*(one() for _ in range(32)))
    assert _resident() - before < 100 * 2**20


@pytest.mark.parametrize("nonsense", [b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff\xff\xff", b"\x00\x00\x00\x03abc", b"\x00"])
async def test_serve__nonsense__the_connection_ends_and_others_go_on(
    remote: RemoteHub, server: HubServer, tmp_path: Path, nonsense: bytes
) -> None:
    await remote.blob(_REPOSITORY, _DIGEST)
    reader, writer = await asyncio.open_unix_connection(tmp_path / "hub")
    writer.write(nonsense)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), _SECONDS) == b""
    writer.close()
    assert await remote.blob(_REPOSITORY, _DIGEST) == Whole(1, CacheStatus(Outcome.HIT))


def _resident() -> int:
    """Return this process's resident memory in bytes."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096
