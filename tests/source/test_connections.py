"""Connections: how many at a time, wherever an upstream leads, and how each comes about, step by step."""

from __future__ import annotations

import asyncio
import time

import pytest

from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Tag
from mirror.source import BlobStream
from tests import upstream as bed
from tests.source.conftest import APP, Source, asking
from tests.source.test_blobs import drain
from tests.upstream import Upstream

TAG = Tag("1")
SIZE = 2_000_000


async def failing(source: Source) -> RegistryError:
    """Fetch what cannot be had, and return the error."""
    with pytest.raises(RegistryError) as refused:
        await source.manifests.fetch(source.upstream, APP, TAG)
    return refused.value


async def settled() -> None:
    """Let whatever can go on do so: what waits for a turn has it by then, if it is free."""
    for _ in range(50):
        await asyncio.sleep(0.005)


class TestLimit:
    async def test_holds__over_all_fills_and_wherever_they_lead(self, upstream: Upstream) -> None:
        digests = [Digest(upstream.push_random_blob(APP.name, SIZE, seed)) for seed in range(6)]
        upstream.dials.redirect, upstream.dials.blob_stall = True, 1_000
        async with asking(upstream.url, settings={"max_connections": 4}) as source:
            opening = [asyncio.create_task(source.blobs.open(APP, each, 0)) for each in digests]
            await settled()
            streams = [task.result() for task in opening if task.done()]
            assert len(streams) == upstream.counters.requests(kind="cdn") == 3
            # A manifest has a turn of its own.
            upstream.push_image(APP.name, TAG, layers=(10,))
            await source.manifests.fetch(source.upstream, APP, TAG)
            upstream.reset()
            for stream, digest in zip(streams, digests, strict=False):
                assert (await drain(stream))[0] == upstream.content(digest)
            rest: list[BlobStream] = await asyncio.gather(*opening[3:])
            for stream, digest in zip(rest, digests[3:], strict=True):
                assert (await drain(stream))[0] == upstream.content(digest)

    async def test_lets_a_manifest_pass__beside_the_only_transfer(self, upstream: Upstream) -> None:
        upstream.push_image(APP.name, TAG, layers=(10,))
        digest = Digest(upstream.push_random_blob(APP.name, SIZE))
        upstream.dials.auth, upstream.dials.blob_stall = "bearer", 1_000
        async with asking(upstream.url, settings={"max_connections": 1}) as source:
            stream = await source.blobs.open(APP, digest, 0)
            await source.manifests.fetch(source.upstream, APP, TAG)
            await stream.close()

    @pytest.mark.parametrize("kind", ["blob", "manifest"])
    async def test_loses_no_turn__whatever_becomes_of_a_request(self, kind: str, upstream: Upstream) -> None:
        upstream.push_image(APP.name, TAG, layers=(10,))
        digest = Digest(upstream.push_random_blob(APP.name, SIZE))
        troubles = [
            bed.Failure(404, kind=kind),  # type: ignore[arg-type]
            bed.Failure(403, kind=kind, body="html"),  # type: ignore[arg-type]
            bed.Failure(307, kind=kind, headers={"Location": "ftp://x/"}),  # type: ignore[arg-type]
            bed.Failure(200, kind=kind, headers={"Content-Encoding": "gzip"}),  # type: ignore[arg-type]
        ]
        async with asking(upstream.url, settings={"max_connections": 2}) as source:

            async def asked() -> None:
                if kind == "blob":
                    await source.blobs.open(APP, digest, 0)
                else:
                    await source.manifests.fetch(source.upstream, APP, TAG)

            for trouble in troubles * 3:
                upstream.dials.failures = [trouble]
                with pytest.raises(RegistryError):
                    await asked()
            upstream.reset()
            upstream.dials.black_hole = {kind}
            for _ in range(5):
                task = asyncio.create_task(asked())
                await asyncio.sleep(0.01)
                task.cancel()
                await asyncio.wait({task})
            upstream.reset()
            await source.manifests.fetch(source.upstream, APP, TAG)
            assert len((await drain(await source.blobs.open(APP, digest, 0)))[0]) == SIZE
            (slots,) = source.client._connections._slots.values()
            assert slots.is_idle

    async def test_of_one_upstream__is_not_another_s(self, upstream: Upstream) -> None:
        upstream.push_image(APP.name, TAG, layers=(10,))
        with Upstream() as slow:
            slow.dials.black_hole = {"*"}
            async with asking(upstream.url, settings={"max_connections": 2}) as source:
                other = source.upstream._replace(name="slow.example", label="slow.example", url=slow.url)
                waiting = [asyncio.create_task(source.manifests.fetch(other, APP, TAG)) for _ in range(50)]
                for _ in range(20):
                    await source.manifests.fetch(source.upstream, APP, TAG)
                assert not any(task.done() for task in waiting)
                for task in waiting:
                    task.cancel()
                await asyncio.wait(waiting)

    async def test_says_so__when_a_turn_does_not_come(
        self, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mirror.source.upstream.slots._STUCK_SECONDS", 0.1)
        upstream.dials.black_hole = {"manifest"}
        async with asking(upstream.url, settings={"max_connections": 1}) as source:
            holding = asyncio.create_task(failing(source))
            await settled()
            error = await failing(source)
            assert (error.code, error.failure) == (ErrorCode.UNAVAILABLE, Failure.TIMEOUT)
            assert "too much at a time" in error.message
            assert upstream.counters.requests() == 1
            assert source.counted("layover_upstream_up") == 1
            holding.cancel()
            await asyncio.wait({holding})


class TestBandwidth:
    async def test_holds__over_all_blobs_of_an_upstream(self, upstream: Upstream) -> None:
        digests = [Digest(upstream.push_random_blob(APP.name, SIZE, seed)) for seed in range(3)]
        async with asking(upstream.url, settings={"bandwidth": 4_000_000}) as source:
            began = time.monotonic()
            streams = await asyncio.gather(*(source.blobs.open(APP, each, 0) for each in digests))
            found = await asyncio.gather(*(drain(each) for each in streams))
            seconds = time.monotonic() - began
        assert [data for data, _ in found] == [upstream.content(each) for each in digests]
        assert seconds >= 3 * SIZE / 4_000_000 - 0.2


class TestSteps:
    async def test_are_taken__only_where_something_moves(self, upstream: Upstream, source: Source) -> None:
        upstream.push_image(APP.name, TAG, layers=(10,))
        steps: list[int] = []
        await source.manifests.head(source.upstream, APP, TAG, steps.append)
        assert steps == [1, 1, 1, 1]
        await source.manifests.head(source.upstream, APP, TAG, steps.append)
        assert steps == [1, 1, 1, 1, 1]  # over the same connection
        upstream.dials.black_hole = {"manifest"}
        head = asyncio.create_task(source.manifests.head(source.upstream, APP, TAG, steps.append))
        await settled()
        assert len(steps) == 5
        head.cancel()

    async def test_are_taken__for_a_name(self, upstream: Upstream) -> None:
        upstream.push_image(APP.name, TAG, layers=(10,))
        steps: list[int] = []
        async with asking(upstream.url.replace("127.0.0.1", "localhost")) as source:
            await source.manifests.head(source.upstream, APP, TAG, steps.append)
        assert steps == [1] * 5

    @pytest.mark.parametrize(("far", "weight"), [(0.0, 2), (60.0, 1)])
    async def test_tell_tls_apart__from_the_connection_under_it(
        self, far: float, weight: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mirror.source.upstream.steps._FAR_SECONDS", far)
        accepted = asyncio.Event()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.set()
            await reader.read()  # the handshake is never answered
            writer.close()

        async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
            steps: list[int] = []
            async with asking(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}") as source:
                head = asyncio.create_task(source.manifests.head(source.upstream, APP, TAG, steps.append))
                await accepted.wait()
                await settled()
                assert steps == [1, weight]
                head.cancel()
                await asyncio.wait({head})
