"""Manifests: asked for with one Accept set, verified, and passed on as they came."""

from __future__ import annotations

import pytest

from mirror.oci import media_types
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Tag
from mirror.source.upstream.manifests import LONGEST_MANIFEST, CheckedHead, FetchedManifest
from tests import upstream as bed
from tests.oci.test_manifest import SCHEMA1, sign
from tests.source.conftest import APP, Source
from tests.upstream import Upstream

TAG = Tag("1")
OTHER_BODY = b'{"schemaVersion": 2, "layers": []}'


class TestFetch:
    @pytest.mark.parametrize("by_digest", [False, True], ids=["tag", "digest"])
    async def test_returns__bytes_and_type_as_they_came(
        self, by_digest: bool, upstream: Upstream, source: Source
    ) -> None:
        body = b'{ "schemaVersion": 2,\n "manifests": [] }\n'
        digest = Digest(upstream.push_manifest(APP.name, TAG, body, "application/vnd.example+json"))
        found = await source.manifests.fetch(source.upstream, APP, digest if by_digest else TAG)
        assert found == (digest, "application/vnd.example+json", body)

    async def test_accepts__every_type_of_manifest_at_once(self, upstream: Upstream, source: Source) -> None:
        upstream.push_image(APP.name, TAG, layers=(1_000,))
        await source.manifests.fetch(source.upstream, APP, TAG)
        await source.manifests.head(source.upstream, APP, TAG, lambda _: None)
        for asked in upstream.counters.headers:
            accepted = {each.strip() for each in asked.headers["Accept"].split(",")}
            assert accepted >= {
                media_types.DOCKER_SCHEMA1,
                media_types.DOCKER_SCHEMA1_SIGNED,
                media_types.DOCKER_MANIFEST,
                media_types.DOCKER_LIST,
                media_types.OCI_MANIFEST,
                media_types.OCI_INDEX,
            }

    async def test_verifies__by_sha512_too(self, upstream: Upstream, source: Source) -> None:
        digest = Digest(upstream.push_manifest(APP.name, "sha512:", OTHER_BODY, media_types.OCI_MANIFEST))
        assert (await source.manifests.fetch(source.upstream, APP, digest)).digest == digest
        upstream.dials.manifest_corrupt = True
        with pytest.raises(RegistryError):
            await source.manifests.fetch(source.upstream, APP, digest)

    async def test_verifies__a_signed_manifest_over_its_payload(self, upstream: Upstream, source: Source) -> None:
        digest = Digest.of(SCHEMA1)
        upstream.push_manifest(APP.name, TAG, sign(SCHEMA1), media_types.DOCKER_SCHEMA1_SIGNED)
        upstream.dials.manifest_get_digest = False
        found = await source.manifests.fetch(source.upstream, APP, TAG)
        assert found == (digest, media_types.DOCKER_SCHEMA1_SIGNED, sign(SCHEMA1))

    async def test_refuses__what_is_not_what_it_claims(self, upstream: Upstream, source: Source) -> None:
        image = upstream.push_image(APP.name, TAG, layers=(1_000,))
        upstream.dials.manifest_wrong_digest = True
        with pytest.raises(RegistryError, match="does not have the digest") as refused:
            await source.manifests.fetch(source.upstream, APP, TAG)
        assert (refused.value.code, refused.value.failure) == (ErrorCode.UNAVAILABLE, Failure.SERVER)
        assert source.counted("layover_digest_mismatches_total") == 1
        upstream.reset()
        assert (await source.manifests.fetch(source.upstream, APP, TAG)).digest == image.index.digest

    async def test_refuses__another_manifest_than_the_one_asked_for(self, upstream: Upstream, source: Source) -> None:
        upstream.push_image(APP.name, TAG, layers=(1_000,))
        asked = Digest(upstream.push_manifest(APP.name, "sha256:", OTHER_BODY, media_types.OCI_MANIFEST))
        upstream.dials.manifest_corrupt = True
        with pytest.raises(RegistryError, match=asked):
            await source.manifests.fetch(source.upstream, APP, asked)
        assert source.counted("layover_digest_mismatches_total") == 1

    @pytest.mark.parametrize("body", [b"", b"<html>login</html>", b"[]", b"null", b'"text"'])
    async def test_refuses__what_is_no_manifest(self, body: bytes, upstream: Upstream, source: Source) -> None:
        upstream.push_manifest(APP.name, TAG, body, media_types.OCI_MANIFEST)
        with pytest.raises(RegistryError, match="no manifest") as refused:
            await source.manifests.fetch(source.upstream, APP, TAG)
        assert refused.value.failure is Failure.SERVER

    @pytest.mark.parametrize(
        "media_type", ["", "application/octet-stream", "application/json; charset=utf-8", "text/plain", "text/html"]
    )
    async def test_tells_the_type__that_the_upstream_does_not(
        self, media_type: str, upstream: Upstream, source: Source
    ) -> None:
        upstream.push_image(APP.name, TAG, layers=(1_000,))
        upstream.dials.manifest_type = media_type or "application/octet-stream"
        upstream.dials.manifest_get_digest = upstream.dials.manifest_length = False
        found = await source.manifests.fetch(source.upstream, APP, TAG)
        assert found.media_type == media_types.OCI_INDEX

    async def test_refuses__what_has_no_end(self, upstream: Upstream, source: Source) -> None:
        for size, fits in ((LONGEST_MANIFEST, True), (LONGEST_MANIFEST + 1, False)):
            body = b'{"schemaVersion": 2%s}' % (b" " * (size - 20))
            assert len(body) == size
            upstream.push_manifest(APP.name, TAG, body, media_types.OCI_MANIFEST)
            if fits:
                assert (await source.manifests.fetch(source.upstream, APP, TAG)).body == body
                continue
            with pytest.raises(RegistryError, match="more than") as refused:
                await source.manifests.fetch(source.upstream, APP, TAG)
            assert refused.value.failure is Failure.SERVER


class TestHead:
    async def test_tells__digest_and_type(self, upstream: Upstream, source: Source) -> None:
        index = upstream.push_image(APP.name, TAG, layers=(1_000,)).index
        steps: list[int] = []
        found = await source.manifests.head(source.upstream, APP, TAG, steps.append)
        assert (found.digest, found.media_type) == (index.digest, index.media_type)
        assert steps == [1, 1, 1, 1]  # a connection begun, accepted and made, and the answer

    async def test_leaves_out__what_the_upstream_leaves_out(self, upstream: Upstream, source: Source) -> None:
        upstream.push_image(APP.name, TAG, layers=(1_000,))
        upstream.dials.manifest_head_digest = upstream.dials.manifest_head_length = False
        upstream.dials.manifest_head_type = "application/octet-stream"
        found = await source.manifests.head(source.upstream, APP, TAG, lambda _: None)
        assert (found.digest, found.media_type) == (None, None)

    async def test_steps__with_every_token_and_redirect(self, upstream: Upstream, source: Source) -> None:
        upstream.push_image(APP.name, TAG, layers=(1_000,))
        upstream.dials.auth, upstream.dials.redirect_manifests = "bearer", True
        steps: list[int] = []
        await source.manifests.head(source.upstream, APP, TAG, steps.append)
        assert len(upstream.counters.headers) == 4
        # Each of two origins is connected to, as is that of the token where it is another one.
        assert len(steps) == 4 + 2 * 3

    @pytest.mark.parametrize(
        ("status", "code"), [(403, ErrorCode.DENIED), (405, ErrorCode.UNAVAILABLE), (503, ErrorCode.UNAVAILABLE)]
    )
    async def test_fails__without_a_word_on_the_image(
        self, status: int, code: ErrorCode, upstream: Upstream, source: Source
    ) -> None:
        upstream.push_image(APP.name, TAG, layers=(1_000,))
        upstream.dials.manifest_head_status = status
        with pytest.raises(RegistryError) as refused:
            await source.manifests.head(source.upstream, APP, TAG, lambda _: None)
        assert refused.value.code is code
        assert refused.value.failure is not None


class TestCheck:
    @pytest.fixture
    def index(self, upstream: Upstream) -> str:
        return upstream.push_image(APP.name, TAG, layers=(1_000,)).index.digest

    async def check(self, source: Source, *, may_get: bool = True) -> CheckedHead | FetchedManifest:
        return await source.manifests.check(source.upstream, APP, TAG, lambda _: None, is_probe=False, may_get=may_get)

    async def test_is_a_head__where_that_tells(self, upstream: Upstream, source: Source, index: str) -> None:
        for _ in range(3):
            found = await self.check(source)
            assert isinstance(found, CheckedHead)
            assert found.digest == index
        assert (upstream.counters.requests("HEAD"), upstream.counters.requests("GET")) == (3, 0)

    @pytest.mark.parametrize("status", [None, 405, 501])
    async def test_is_a_get__where_a_head_never_tells(
        self, status: int | None, upstream: Upstream, source: Source, index: str
    ) -> None:
        upstream.dials.manifest_head_status, upstream.dials.manifest_head_digest = status, False
        for _ in range(3):
            found = await self.check(source)
            assert isinstance(found, FetchedManifest)
            assert found.digest == index
        assert (upstream.counters.requests("HEAD"), upstream.counters.requests("GET")) == (1, 3)

    async def test_is_both__until_a_head_was_refused_often_enough(
        self, upstream: Upstream, source: Source, index: str
    ) -> None:
        upstream.dials.manifest_head_status = 403
        for _ in range(2):
            assert isinstance(await self.check(source), FetchedManifest)
        upstream.reset()
        assert isinstance(await self.check(source), CheckedHead)
        upstream.dials.manifest_head_status = 403
        upstream.counters.clear()
        for _ in range(5):
            assert isinstance(await self.check(source), FetchedManifest)
        assert (upstream.counters.requests("HEAD"), upstream.counters.requests("GET")) == (3, 5)

    async def test_tries_a_get__once_heads_alone_fail_again_and_again(
        self, upstream: Upstream, source: Source, index: str
    ) -> None:
        upstream.dials.manifest_head_status = 503
        for _ in range(2):
            with pytest.raises(RegistryError) as refused:
                await self.check(source)
            assert refused.value.failure is Failure.SERVER
        assert upstream.counters.requests("GET") == 0
        for _ in range(3):
            assert isinstance(await self.check(source), FetchedManifest)
        assert upstream.counters.requests("GET") == 3

    async def test_learns_nothing__from_an_outage(self, upstream: Upstream, source: Source, index: str) -> None:
        upstream.pause()
        for _ in range(5):
            with pytest.raises(RegistryError):
                await self.check(source)
        upstream.resume()
        upstream.dials.manifest_head_status = 503
        with pytest.raises(RegistryError):
            await source.manifests.check(source.upstream, APP, TAG, lambda _: None, is_probe=True, may_get=True)
        assert upstream.counters.requests("GET") == 0

    @pytest.mark.parametrize("status", [None, 403, 405])
    async def test_is_not_made__where_only_a_get_tells_and_may_not(
        self, status: int | None, upstream: Upstream, source: Source, index: str
    ) -> None:
        upstream.dials.manifest_head_status, upstream.dials.manifest_head_digest = status, False
        for _ in range(2):
            with pytest.raises(RegistryError) as refused:
                await self.check(source, may_get=False)
            assert (refused.value.status, refused.value.failure) == (429, Failure.QUOTA)
        assert upstream.counters.requests("GET") == 0

    async def test_ends__with_a_404(self, upstream: Upstream, source: Source, index: str) -> None:
        upstream.remove(APP.name, TAG)
        with pytest.raises(RegistryError) as refused:
            await self.check(source)
        assert (refused.value.status, refused.value.failure) == (404, None)
        assert upstream.counters.requests() == 1

    @pytest.mark.parametrize("dial", ["pause", "429"])
    async def test_is_no_get__where_the_upstream_fails(
        self, dial: str, upstream: Upstream, source: Source, index: str
    ) -> None:
        if dial == "pause":
            upstream.pause()
        else:
            upstream.dials.failures.append(bed.Failure(429, kind="manifest"))
        with pytest.raises(RegistryError):
            await self.check(source)
        assert upstream.counters.requests("GET") == 0
