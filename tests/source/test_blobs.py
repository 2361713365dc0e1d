"""One ranged stream of a blob: where it truly starts, how large the blob is, and every byte that arrived."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.source import BlobStream, RangeMistaken, RangeRefused
from mirror.source.upstream.blobs import UpstreamBlob
from tests import upstream as bed
from tests.source.conftest import APP, Source
from tests.upstream import Upstream

SIZE = 3_000_000


@pytest.fixture
def digest(upstream: Upstream) -> Digest:
    return Digest(upstream.push_random_blob(APP.name, SIZE))


async def drain(stream: BlobStream) -> tuple[bytes, RegistryError | None]:
    """Return all bytes of a stream, and how it broke if it did."""
    pieces = []
    try:
        while piece := await stream.read():
            pieces.append(piece)
    except RegistryError as error:
        return b"".join(pieces), error
    finally:
        await stream.close()
    return b"".join(pieces), None


class TestRanges:
    async def test_asks_for_all__without_a_range(self, upstream: Upstream, source: Source, digest: Digest) -> None:
        stream = await source.blobs.open(APP, digest, 0)
        assert (stream.start, stream.size) == (0, SIZE)
        assert await drain(stream) == (upstream.content(digest), None)
        assert "Range" not in upstream.counters.headers[-1].headers
        assert source.counted("layover_upstream_bytes_total") == SIZE

    @pytest.mark.parametrize("start", [1, 1_234_567, SIZE - 1])
    async def test_begins__where_it_was_asked_to(
        self, start: int, upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        stream = await source.blobs.open(APP, digest, start)
        assert (stream.start, stream.size) == (start, SIZE)
        assert await drain(stream) == (upstream.content(digest)[start:], None)
        assert upstream.counters.headers[-1].headers["Range"] == f"bytes={start}-"
        assert upstream.counters.sent() == SIZE - start

    async def test_says_so__where_the_storage_ignores_ranges(
        self, upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        upstream.dials.blob_ranges = "ignored"
        stream = await source.blobs.open(APP, digest, 1_000)
        assert (stream.start, stream.size) == (0, SIZE)
        assert await drain(stream) == (upstream.content(digest), None)

    async def test_refuses__another_range_than_it_asked_for(
        self, upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        upstream.dials.blob_ranges = "wrong"
        with pytest.raises(RegistryError, match="another range") as refused:
            await source.blobs.open(APP, digest, 1_000)
        assert refused.value.failure is Failure.SERVER

    @pytest.mark.parametrize(
        "content_range",
        [
            "",
            "bytes 999-2999999/3000000",
            "bytes 1000-2999998/3000000",
            "bytes 1000-2999999/*",
            "bytes */3000000",
            "items 1000-2999999/3000000",
            "bytes 1000-/3000000",
        ],
    )
    async def test_refuses__a_content_range_that_is_not_exact(
        self, content_range: str, upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        headers = {"Content-Range": content_range} if content_range else {}
        upstream.dials.failures.append(bed.Failure(206, kind="blob", body="plain", headers=headers))
        with pytest.raises(RegistryError, match="another range"):
            await source.blobs.open(APP, digest, 1_000)

    @pytest.mark.parametrize("ranges", ["served", "refused"])
    async def test_tells__that_there_is_nothing_at_the_offset(
        self, ranges: Literal["served", "refused"], upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        upstream.dials.blob_ranges = ranges
        with pytest.raises(RangeRefused):
            await source.blobs.open(APP, digest, SIZE if ranges == "served" else 1)

    async def test_takes_416__for_an_error_where_no_range_was_asked_for(
        self, upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        upstream.dials.failures.append(bed.Failure(416, kind="blob"))
        with pytest.raises(RegistryError) as refused:
            await source.blobs.open(APP, digest, 0)
        assert refused.value.failure is Failure.SERVER

    @pytest.mark.parametrize("length", ["chunked", "close"])
    async def test_knows_no_size__where_none_is_announced(
        self, length: Literal["chunked", "close"], upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        upstream.dials.blob_length = length
        stream = await source.blobs.open(APP, digest, 0)
        assert stream.size is None
        assert await drain(stream) == (upstream.content(digest), None)


class TestClosedRanges:
    @pytest.mark.parametrize(
        ("start", "stop", "end"), [(0, 100, 100), (1000, 2000, 2000), (SIZE - 10, SIZE + 10, SIZE)]
    )
    async def test_end__where_they_were_asked_to(
        self, start: int, stop: int, end: int, upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        stream = await source.blobs.open(APP, digest, start, stop)
        assert (stream.start, stream.stop, stream.size) == (start, end, SIZE)
        assert await drain(stream) == (upstream.content(digest)[start:end], None)
        assert upstream.counters.headers[-1].headers["Range"] == f"bytes={start}-{stop - 1}"

    @pytest.mark.parametrize("ranges", ["wrong", "shifted"])
    async def test_are_mistaken(
        self, ranges: Literal["wrong", "shifted"], upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        upstream.dials.blob_ranges = ranges
        with pytest.raises(RangeMistaken):
            await source.blobs.open(APP, digest, 0, 1_000)

    @pytest.mark.parametrize("size", [None, SIZE])
    async def test_are_mistaken__where_more_comes(self, size: int | None, upstream: Upstream, source: Source) -> None:
        digest = Digest(upstream.push_random_blob(APP.name, SIZE))
        headers = {"Content-Range": f"bytes 0-{SIZE - 1}/{size or '*'}"}
        upstream.dials.failures.append(bed.Failure(206, kind="blob", body="plain", headers=headers))
        with pytest.raises(RangeMistaken):
            await source.blobs.open(APP, digest, 0, 1_000)


class TestSignedUrls:
    @pytest.fixture(autouse=True)
    def redirected(self, upstream: Upstream) -> None:
        upstream.dials.redirect, upstream.dials.auth = True, "bearer"

    async def ranges(self, source: Source, digest: Digest, count: int) -> None:
        """Open and read ranges at once."""
        opening = (source.blobs.open(APP, digest, each * 1000, each * 1000 + 1000) for each in range(count))
        for stream in await asyncio.gather(*opening):
            assert (await drain(stream))[1] is None

    async def test_are_used_again__for_other_ranges(self, upstream: Upstream, source: Source, digest: Digest) -> None:
        for _ in range(3):
            await self.ranges(source, digest, 1)
        await self.ranges(source, digest, 8)
        asked = upstream.counters.requests("GET", "blob")
        assert asked == 2  # the first came without a token
        assert upstream.counters.requests("GET", "cdn") == 11
        assert upstream.counters.authorizations("cdn") == []

    async def test_are_renewed_once__for_all_who_need_it(
        self, upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        await self.ranges(source, digest, 1)
        await self.ranges(source, digest, 1)
        upstream.counters.clear()
        upstream.dials.cdn_seconds = 0.3
        await asyncio.sleep(0.35)
        await self.ranges(source, digest, 8)
        assert upstream.counters.requests("GET", "blob") == 1

    @pytest.mark.parametrize("status", [401, 403, 404, 410])
    async def test_are_renewed__whatever_storage_says(
        self, status: int, upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        await self.ranges(source, digest, 1)
        upstream.dials.failures.append(bed.Failure(status, kind="cdn", times=1))
        await self.ranges(source, digest, 1)

    @pytest.mark.parametrize("status", [429, 503])
    async def test_are_not_asked_again_at_once__where_storage_has_enough(
        self, status: int, upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        await self.ranges(source, digest, 1)
        upstream.counters.clear()
        upstream.dials.failures.append(bed.Failure(status, kind="cdn", times=1))
        with pytest.raises(RegistryError):
            await self.ranges(source, digest, 1)
        assert upstream.counters.requests("GET", "blob") == 0

    async def test_are_each_used_once__where_they_are_good_for_no_more(
        self, upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        upstream.dials.cdn_uses = 1
        for _ in range(10):
            await self.ranges(source, digest, 1)
        assert upstream.counters.requests("GET", "cdn") <= 10 + 2

    async def test_of_one_blob__are_not_another_s(self, upstream: Upstream, source: Source, digest: Digest) -> None:
        other = Digest(upstream.push_random_blob(APP.name, SIZE, 1))
        for each in (digest, other, digest):
            stream = await source.blobs.open(APP, each, 0, 1000)
            assert await drain(stream) == (upstream.content(each)[:1000], None)


class TestBrokenStreams:
    @pytest.mark.parametrize("cut", [0, 1, 65_535, 262_144, 262_145, 1_000_003, SIZE - 1])
    @pytest.mark.parametrize("length", ["announced", "chunked"])
    async def test_give_every_byte__that_arrived(
        self, cut: int, length: Literal["announced", "chunked"], upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        upstream.dials.blob_cut, upstream.dials.blob_length = cut, length
        data, error = await drain(await source.blobs.open(APP, digest, 0))
        assert data == upstream.content(digest)[:cut]
        assert error is not None
        assert (error.code, error.failure) == (ErrorCode.UNAVAILABLE, Failure.RESET)
        assert source.counted("layover_upstream_bytes_total") == cut

    @pytest.mark.parametrize("cut", [1, 65_536, 300_000])
    @pytest.mark.parametrize("length", ["announced", "chunked"])
    async def test_give_every_byte__though_they_broke_before_it_was_read(
        self, cut: int, length: Literal["announced", "chunked"], upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        upstream.dials.blob_cut, upstream.dials.blob_length = cut, length
        stream = await source.blobs.open(APP, digest, 0)
        assert isinstance(stream, UpstreamBlob)
        for _ in range(1000):
            if stream._answer.content.exception() is not None:
                break
            await asyncio.sleep(0.01)
        data, error = await drain(stream)
        assert data == upstream.content(digest)[:cut]
        assert error is not None
        assert error.failure is Failure.RESET

    async def test_stay_broken(self, upstream: Upstream, source: Source, digest: Digest) -> None:
        upstream.dials.blob_cut = 1_000
        stream = await source.blobs.open(APP, digest, 0)
        assert len(await stream.read()) == 1_000
        for _ in range(2):
            with pytest.raises(RegistryError):
                await stream.read()
        await stream.close()
        await stream.close()

    async def test_are_told__by_a_reset(self, upstream: Upstream, source: Source, digest: Digest) -> None:
        upstream.dials.blob_cut, upstream.dials.blob_cut_reset = 1_000_000, True
        data, error = await drain(await source.blobs.open(APP, digest, 0))
        assert data == upstream.content(digest)[: len(data)]
        assert len(data) <= 1_000_000
        assert error is not None
        assert error.failure is Failure.RESET

    async def test_end_with_content_length__whatever_follows(
        self, upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        upstream.dials.blob_extra = 5_000
        assert await drain(await source.blobs.open(APP, digest, 0)) == (upstream.content(digest), None)
        upstream.dials.blob_extra = 0
        assert await drain(await source.blobs.open(APP, digest, 0)) == (upstream.content(digest), None)


class TestSize:
    async def test_is_what_head_says(self, upstream: Upstream, source: Source, digest: Digest) -> None:
        assert await source.blobs.size(APP, digest) == SIZE
        assert upstream.counters.sent() == 0

    @pytest.mark.parametrize("status", [403, 405, 500])
    async def test_is_had_by_get__where_storage_refuses_head(
        self, status: int, upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        upstream.dials.redirect, upstream.dials.cdn_head_status = True, status
        assert await source.blobs.size(APP, digest) == SIZE
        assert upstream.counters.sent() <= 1

    async def test_is_unknown__where_nothing_tells_it(self, upstream: Upstream, source: Source, digest: Digest) -> None:
        upstream.dials.redirect, upstream.dials.cdn_head_status = True, 403
        upstream.dials.blob_ranges, upstream.dials.blob_length = "ignored", "chunked"
        assert await source.blobs.size(APP, digest) is None

    async def test_is_an_error__of_a_blob_that_is_not_there(self, upstream: Upstream, source: Source) -> None:
        upstream.push_random_blob(APP.name, 10)
        for call in (source.blobs.size(APP, Digest.of(b"no")), source.blobs.open(APP, Digest.of(b"no"), 0)):
            with pytest.raises(RegistryError) as refused:
                await call
            assert (refused.value.code, refused.value.failure) == (ErrorCode.BLOB_UNKNOWN, None)
