"""Endpoints: asked in order before the upstream itself, without its credentials, and passed over while they fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from mirror.oci import media_types
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository, Tag
from mirror.source.upstream.ask import Ask
from tests import upstream as bed
from tests.source.conftest import APP, HOST, Source, asking
from tests.source.test_blobs import drain
from tests.upstream import Upstream

TAG = Tag("1")
BODY = b'{"schemaVersion": 2, "layers": []}'
SIZE = 3_000_000


@pytest.fixture
def near() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@asynccontextmanager
async def through(upstream: Upstream, *endpoints: Upstream | str) -> AsyncIterator[Source]:
    urls = [each if isinstance(each, str) else each.url for each in endpoints]
    async with asking(upstream.url, settings={"endpoints": urls}) as source:
        yield source


def push(*registries: Upstream) -> Digest:
    """Push one manifest everywhere under the tag."""
    return [Digest(each.push_manifest(APP.name, TAG, BODY, media_types.OCI_MANIFEST)) for each in registries][-1]


def push_blob(*registries: Upstream) -> Digest:
    return [Digest(each.push_random_blob(APP.name, SIZE)) for each in registries][-1]


class TestOrder:
    async def test_is_endpoints_first(self, upstream: Upstream, near: Upstream) -> None:
        tagged, blob = push(upstream, near), push_blob(upstream, near)
        async with through(upstream, near) as source:
            assert (await source.manifests.fetch(source.upstream, APP, TAG)).digest == tagged
            assert (await source.manifests.head(source.upstream, APP, TAG)).digest == tagged
            assert await source.blobs.size(APP, blob) == SIZE
            assert (await drain(await source.blobs.open(APP, blob, 10)))[0] == upstream.content(blob)[10:]
        assert upstream.counters.headers == []
        assert [each.path.partition("?")[2] for each in near.counters.headers] == [f"ns={HOST}"] * 4

    async def test_is_that_of_the_configuration(self, upstream: Upstream, near: Upstream) -> None:
        with Upstream() as further:
            push(upstream, near, further)
            async with through(upstream, near, further) as source:
                await source.manifests.fetch(source.upstream, APP, TAG)
                assert (near.counters.requests(), further.counters.requests()) == (1, 0)
                near.remove(APP.name, TAG)
                await source.manifests.fetch(source.upstream, APP, TAG)
        assert (near.counters.requests(), further.counters.requests(), upstream.counters.requests()) == (2, 1, 0)

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
    async def test_goes_on__after_any_refusal(self, status: int, upstream: Upstream, near: Upstream) -> None:
        tagged, blob = push(upstream), push_blob(upstream)
        near.dials.failures.append(bed.Failure(status))
        async with through(upstream, near) as source:
            assert (await source.manifests.fetch(source.upstream, APP, TAG)).digest == tagged
            assert (await drain(await source.blobs.open(APP, blob, 0)))[0] == upstream.content(blob)

    @pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid"])
    async def test_goes_on__past_what_is_not_there(self, url: str, upstream: Upstream) -> None:
        push(upstream)
        async with through(upstream, url) as source:
            for _ in range(3):
                await source.manifests.fetch(source.upstream, APP, TAG)

    async def test_ends__with_the_upstream_s_own_word(self, upstream: Upstream, near: Upstream) -> None:
        upstream.dials.failures.append(bed.Failure(404, kind="manifest", code="NAME_UNKNOWN"))
        near.dials.failures.append(bed.Failure(503))
        async with through(upstream, near) as source:
            with pytest.raises(RegistryError) as refused:
                await source.manifests.fetch(source.upstream, APP, TAG)
        assert (refused.value.status, refused.value.code) == (404, "NAME_UNKNOWN")

    async def test_is_not_for_listings__nor_for_those_who_ask_as_anybody(
        self, upstream: Upstream, near: Upstream
    ) -> None:
        push(upstream, near)
        async with through(upstream, near) as source:
            for kind, path in (("manifest", "manifests/1"), ("tags", "tags/list")):
                ask = Ask(source.upstream, APP, kind, "GET", path, ErrorCode.NAME_UNKNOWN)
                answer = await source.client.ask(ask._replace(is_anonymous=kind == "manifest"))
                answer.release()
        assert near.counters.headers == []


class TestTrust:
    async def test_has_no_credentials(self, upstream: Upstream, near: Upstream) -> None:
        blob = push_blob(upstream, near)
        tagged = push(upstream, near)
        for each in (upstream, near):
            each.dials.auth, each.dials.users = "bearer", {"user": "secret"}
            each.dials.private = {APP.name}
        login = {"username": "user", "password": "secret"}
        async with asking(upstream.url, login=login, settings={"endpoints": [near.url]}) as source:
            assert (await source.manifests.fetch(source.upstream, APP, TAG)).digest == tagged
            assert (await drain(await source.blobs.open(APP, blob, 0)))[0] == upstream.content(blob)
        assert near.counters.witnesses("secret") == set()
        assert upstream.counters.witnesses("secret")
        assert not set(upstream.counters.authorizations()) & set(near.counters.authorizations())

    async def test_ends__where_a_manifest_is_another_one(self, upstream: Upstream, near: Upstream) -> None:
        digest = push(upstream, near)
        near.dials.manifest_corrupt = True
        async with through(upstream, near) as source:
            for _ in range(2):
                assert (await source.manifests.fetch(source.upstream, APP, digest)).body == BODY
            assert near.counters.requests() == 1
            near.reset()
            await source.manifests.fetch(source.upstream, APP, TAG)
            other = Repository(HOST, "library/other")
            near.push_manifest(other.name, "sha256:", BODY, media_types.OCI_MANIFEST)
            await source.manifests.fetch(source.upstream, other, digest)
            assert near.counters.requests() == 3

    async def test_ends__where_the_fill_says_so(self, upstream: Upstream, near: Upstream) -> None:
        digest = push_blob(upstream, near)
        near.dials.blob_corrupt = True
        async with through(upstream, near) as source:
            assert (await drain(await source.blobs.open(APP, digest, 0)))[0] != upstream.content(digest)
            source.client.distrust(source.upstream, digest)
            assert (await drain(await source.blobs.open(APP, digest, 0)))[0] == upstream.content(digest)

    async def test_ends__where_a_blob_is_not_even_read(self, upstream: Upstream, near: Upstream) -> None:
        digest = push_blob(upstream, near)
        near.dials.blob_resize = 1
        async with through(upstream, near) as source:
            stream = await source.blobs.open(APP, digest, 0)
            assert stream.size == SIZE + 1
            await stream.close()
            assert (await drain(await source.blobs.open(APP, digest, 0)))[0] == upstream.content(digest)

    @pytest.mark.parametrize("ranges", ["wrong", "refused"])
    async def test_is_not_needed__of_ranges(self, ranges: str, upstream: Upstream, near: Upstream) -> None:
        digest = push_blob(upstream, near)
        near.dials.blob_ranges = ranges  # type: ignore[assignment]
        async with through(upstream, near) as source:
            assert (await drain(await source.blobs.open(APP, digest, 10)))[0] == upstream.content(digest)[10:]

    async def test_is_not_needed__of_a_head_without_digest(self, upstream: Upstream, near: Upstream) -> None:
        digest = push(upstream, near)
        near.dials.manifest_head_digest = False
        async with through(upstream, near) as source:
            assert (await source.manifests.head(source.upstream, APP, TAG)).digest == digest


class TestBreaking:
    async def test_inside_a_blob__leads_on_to_the_next(self, upstream: Upstream, near: Upstream) -> None:
        digest = push_blob(upstream, near)
        near.dials.blob_cut = 1_000_000
        async with through(upstream, near) as source:
            stream = await source.blobs.open(APP, digest, 0)
            first, error = await drain(stream)
            assert (len(first), error is not None) == (1_000_000, True)
            rest, error = await drain(await source.blobs.open(APP, digest, len(first)))
            assert (first + rest, error) == (upstream.content(digest), None)
        assert near.counters.requests() == 1
        assert upstream.counters.sent() == SIZE - 1_000_000

    async def test_without_a_word__costs_a_while_once(
        self, upstream: Upstream, near: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mirror.source.upstream.client.BUDGET_SECONDS", 4.5)  # so that an endpoint has one second
        push(upstream, near)
        near.dials.black_hole = {"*"}
        async with through(upstream, near) as source:
            began = time.monotonic()
            await source.manifests.fetch(source.upstream, APP, TAG)
            assert time.monotonic() - began >= 1
            for _ in range(20):
                await source.manifests.fetch(source.upstream, APP, TAG)
            assert near.counters.requests("GET") == 1

    async def test_costs_less__while_somebody_waits_who_can_be_answered_otherwise(
        self, upstream: Upstream, near: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mirror.source.upstream.client.BUDGET_SECONDS", 1000.0)
        monkeypatch.setattr("mirror.source.upstream.connections.READ_SECONDS", 1000.0)
        push(upstream, near)
        near.dials.black_hole = {"*"}
        async with through(upstream, near) as source:
            await source.manifests.head(source.upstream, APP, TAG, is_quick=True)

    async def test_is_over__when_the_endpoint_is_back(self, upstream: Upstream, near: Upstream) -> None:
        push(upstream, near)
        near.pause()
        async with through(upstream, near) as source:
            await source.manifests.fetch(source.upstream, APP, TAG)
            near.resume()
            for _ in range(400):
                await source.manifests.fetch(source.upstream, APP, TAG)
                if near.counters.requests("GET"):
                    break
                await asyncio.sleep(0.02)
            # Nobody who waited was the one who found out.
            assert near.counters.headers[0].method == "HEAD"
            assert near.counters.requests("GET") == 1

    async def test_everywhere__is_told_of_the_upstream(self, upstream: Upstream, near: Upstream) -> None:
        upstream.pause()
        near.pause()
        async with through(upstream, near) as source:
            for _ in range(2):
                with pytest.raises(RegistryError, match=upstream.address) as refused:
                    await source.manifests.fetch(source.upstream, APP, TAG)
                assert refused.value.failure is Failure.REFUSED
