"""Requests that come again in the very same bytes: answered as the first one was, for as long as that is right."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.channel import ManifestFound
from mirror.config import Settings
from mirror.config.units import Address
from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.observe.metrics import DoorMetrics, new_registry
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.oci.reference import Reference, Repository
from mirror.pull import Pull
from mirror.registry import Door
from mirror.store import Link, Shelf
from mirror.store.freshness import Freshness
from mirror.store.records import TagState, link_key, tag_key
from tests.replica import free_port

_SECONDS = 20.0
_TYPE = "application/vnd.oci.image.manifest.v1+json"
_OLD, _NEW = b'{"schemaVersion":2}', b'{"schemaVersion":2,"layers":[]}'
_PING = b"GET /v2/ HTTP/1.1\r\nHost: mirror\r\n\r\n"
_REPOSITORY = Repository("docker.io", "library/app")
_UNLIKE = re.compile(rb"(?:Age|Date): [^\r]*|ttl=\d+", re.IGNORECASE)


class _Counted(Pull):
    """Counts what goes the whole way, and what comes back from the hub."""

    whole_way = 0
    from_hub = b""

    async def manifest(self, repository: Repository, reference: Reference) -> ManifestFound:
        self.whole_way += 1
        found = self.held_manifest(repository, reference)
        if found is not None:
            return found
        if not self.from_hub:
            raise RegistryError(ErrorCode.MANIFEST_UNKNOWN, "it is gone")
        return ManifestFound(Digest.of(self.from_hub), _TYPE, self.from_hub, CacheStatus(Outcome.REVALIDATED, 1, 0))


class _Bench:
    """A door over a shelf, with one tag that is held, and a client's connection."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor) -> None:
        settings = Settings()
        self.port = free_port()
        self.shelf = Shelf(folder, remembers_tags=True)
        self.pull = _Counted(self.shelf, None, Freshness(settings.freshness), settings)  # type: ignore[arg-type]
        self.registry = new_registry()
        self.door = Door(settings, self.pull, DoorMetrics(self.registry), pool)
        self.hold(_OLD)

    def hold(self, body: bytes, age: float = 0) -> Digest:
        """Have the tag lead to a manifest, as of `age` seconds ago."""
        digest = Digest.of(body)
        self.shelf.keep_hot(digest, body)
        state = TagState(digest, _TYPE, len(body), time.time() - age)
        link = Link(_TYPE, is_blob=False, size=len(body))
        self.shelf.remember({tag_key(str(_REPOSITORY), "1"): state, link_key(str(_REPOSITORY), digest): link})
        return digest

    def answered(self, outcome: str) -> float:
        """Return how many requests for manifests were counted."""
        labels = {"upstream": "docker.io", "kind": "manifest", "outcome": outcome}
        return self.registry.get_sample_value("layover_requests_total", labels) or 0


class _Client:
    """One connection to the door."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def answer(self, *, has_body: bool = True) -> tuple[bytes, bytes]:
        """Return the head and the body of the next answer."""
        async with asyncio.timeout(_SECONDS):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split()[0]) if has_body else 0
            return head, await self._reader.readexactly(length)

    async def ask(self, request: bytes) -> tuple[bytes, bytes]:
        """Send one request and return its answer."""
        self.writer.write(request)
        return await self.answer(has_body=not request.startswith(b"HEAD"))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[_Bench]:
    with ThreadPoolExecutor(1) as pool:
        bench = _Bench(tmp_path, pool)
        await bench.door.start([Address("127.0.0.1", bench.port)])
        yield bench
        await bench.door.stop(0)


@pytest.fixture
async def client(bench: _Bench) -> AsyncIterator[_Client]:
    streams = await asyncio.open_connection("127.0.0.1", bench.port)
    yield _Client(*streams)
    streams[1].close()


def request(reference: str = "1", method: str = "GET", headers: str = "", query: str = "") -> bytes:
    """Return a request for the manifest."""
    line = f"{method} /v2/library/app/manifests/{reference}{query} HTTP/1.1"
    return f"{line}\r\nHost: mirror\r\nUser-Agent: test\r\n{headers}\r\n".encode()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("query", ["", "?ns=docker.io"])
@pytest.mark.parametrize("by", ["tag", "digest"])
async def test_answers_the_same(bench: _Bench, client: _Client, method: str, query: str, by: str) -> None:
    asked = request("1" if by == "tag" else Digest.of(_OLD), method, query=query)
    answers = [await client.ask(asked) for _ in range(3)]
    assert bench.pull.whole_way == 1
    heads = {_UNLIKE.sub(b"", head) for head, _ in answers}
    assert len(heads) == 1, heads
    assert {body for _, body in answers} == {_OLD if method == "GET" else b""}
    assert bench.answered("hit") == 3


async def test_knows_a_request__of_another_connection(bench: _Bench, client: _Client) -> None:
    await client.ask(request())
    other = _Client(*await asyncio.open_connection("127.0.0.1", bench.port))
    assert (await other.ask(request()))[1] == _OLD
    assert bench.pull.whole_way == 1
    other.writer.close()


async def test_answers_what_is_held_now(bench: _Bench, client: _Client) -> None:
    for _ in range(2):
        await client.ask(request())
    digest = bench.hold(_NEW)
    head, body = await client.ask(request())
    assert body == _NEW
    assert digest.encode() in head
    assert bench.pull.whole_way == 1


async def test_says_how_old_it_is(bench: _Bench, client: _Client) -> None:
    await client.ask(request())
    bench.hold(_OLD, age=100)
    head, _ = await client.ask(request())
    assert b"Age: 100\r\n" in head
    assert b"ttl=199\r\n" in head
    assert bench.pull.whole_way == 1


@pytest.mark.parametrize("state", ["expired", "gone"])
async def test_asks_the_hub__what_is_not_fresh(bench: _Bench, client: _Client, state: str) -> None:
    for _ in range(2):
        await client.ask(request())
    if state == "expired":
        bench.hold(_OLD, age=400)
    else:
        bench.shelf.remember({tag_key(str(_REPOSITORY), "1"): None})
    assert (await client.ask(request()))[0].startswith(b"HTTP/1.1 404")
    bench.pull.from_hub = _NEW
    assert (await client.ask(request()))[1] == _NEW
    assert bench.pull.whole_way == 3


@pytest.mark.parametrize(
    "headers",
    [f'If-None-Match: "{Digest.of(_OLD)}"', "Range: bytes=0-3", "Authorization: Bearer x", "Connection: close"],
)
async def test_goes_the_whole_way__whatever_else_decides(bench: _Bench, headers: str) -> None:
    answers = []
    for _ in range(2):
        client = _Client(*await asyncio.open_connection("127.0.0.1", bench.port))
        client.writer.write(request(headers=f"{headers}\r\n"))
        answers.append((await client.answer(has_body=False))[0].partition(b"\r\n")[0])
        client.writer.close()
    assert len(set(answers)) == 1
    assert bench.pull.whole_way == 2


async def test_answers_in_order__pipelined(bench: _Bench, client: _Client) -> None:
    by_digest = request(Digest.of(_NEW))
    bench.hold(_NEW)
    bench.hold(_OLD)
    for each in (request(), by_digest):
        await client.ask(each)
    client.writer.write((request() + by_digest) * 3 + request(method="HEAD"))
    for _ in range(3):
        assert (await client.answer())[1] == _OLD
        assert (await client.answer())[1] == _NEW
    await client.answer(has_body=False)
    assert (await client.ask(request()))[1] == _OLD


@pytest.mark.parametrize("cut", [1, 30, len(request()) - 2])
async def test_answers__what_comes_in_pieces(bench: _Bench, client: _Client, cut: int) -> None:
    await client.ask(request())
    (connection,) = bench.door._protocol.connections
    connection.data_received(request()[:cut])
    connection.data_received(request()[cut:])
    assert (await client.answer())[1] == _OLD
    assert (await client.ask(request()))[1] == _OLD


async def test_takes_a_body_for_a_body(bench: _Bench, client: _Client) -> None:
    """What looks like a request that is known may be what another one carries."""
    await client.ask(request())
    for _ in range(2):
        known = set(bench.door._protocol.connections)
        other = _Client(*await asyncio.open_connection("127.0.0.1", bench.port))
        await other.ask(_PING)
        (connection,) = set(bench.door._protocol.connections) - known
        connection._lingering_time = _SECONDS
        other.writer.write(request(headers=f"Content-Length: {len(request())}\r\n"))
        assert (await other.answer())[1] == _OLD
        connection.data_received(request())
        assert (await other.ask(_PING))[1] == b"{}"
        other.writer.close()


async def test_takes_a_header_for_a_header(bench: _Bench, client: _Client) -> None:
    """What looks like a request that is known may be the rest of another one's head."""
    for _ in range(2):
        await client.ask(request())
    (connection,) = bench.door._protocol.connections
    connection.data_received(b"GET /v2/ HTTP/1.1\r\nNote: ")
    assert (await client.ask(request()))[1] == b"{}"


async def test_learns_nothing_wrong__from_who_does_not_wait(bench: _Bench, client: _Client) -> None:
    """The second request comes while the first is being answered."""
    bench.hold(_NEW)
    bench.hold(_OLD)
    (connection,) = bench.door._protocol.connections
    await asyncio.sleep(0)
    connection.data_received(request())
    connection.data_received(request(Digest.of(_NEW)))
    assert [(await client.answer())[1] for _ in range(2)] == [_OLD, _NEW]
    for _ in range(2):
        assert (await client.ask(request()))[1] == _OLD
        assert (await client.ask(request(Digest.of(_NEW))))[1] == _NEW


async def test_holds_back__for_a_client_that_takes_nothing(bench: _Bench, client: _Client) -> None:
    body = b'{"schemaVersion":2,"x":"' + b"y" * 2**20 + b'"}'
    bench.hold(body)
    await client.ask(request())
    (connection,) = bench.door._protocol.connections
    for _ in range(100):
        connection.data_received(request())
        await asyncio.sleep(0)
    assert connection.transport is not None
    assert connection.transport.get_write_buffer_size() < 4 * len(body)
    for _ in range(100):
        assert (await client.answer())[1] == body


async def test_writes_a_line(bench: _Bench, client: _Client) -> None:
    with capture_logs() as lines:
        for _ in range(2):
            await client.ask(request(query="?ns=docker.io"))
    first, second = ({**line, "seconds": 0} for line in lines if line["event"] == "request")
    assert first == second
    assert bench.pull.whole_way == 1
