"""Redirects are followed by hand: bytes of the URL kept, credentials left behind, and not for ever."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Tag
from mirror.source.upstream.connections import USER_AGENT
from tests import upstream as bed
from tests.programs import require
from tests.source.conftest import APP, Source, asking
from tests.upstream import Received, Upstream

SIZE = 100_000


@pytest.fixture
def digest(upstream: Upstream) -> Digest:
    """Return a blob that is redirected to storage which minds every byte of the URL."""
    upstream.dials.redirect = True
    return Digest(upstream.push_random_blob(APP.name, SIZE))


async def body(source: Source, digest: Digest, start: int = 0) -> bytes:
    """Return a blob's bytes from `start` on, by one answer."""
    stream = await source.blobs.open(APP, digest, start)
    pieces = []
    while piece := await stream.read():
        pieces.append(piece)
    await stream.close()
    return b"".join(pieces)


def received(upstream: Upstream, origin: str) -> list[Received]:
    return [each for each in upstream.counters.headers if each.origin == origin]


class TestFollowing:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_keeps_the_raw_query__by_every_status(
        self, status: int, upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        upstream.dials.redirect_status = status  # type: ignore[assignment]
        assert await body(source, digest) == upstream.content(digest)
        (asked,) = received(upstream, "cdn")
        for raw in ("%2F", "%2B", "%40", "%7E"):
            assert raw in asked.path

    async def test_keeps_method_and_range(self, upstream: Upstream, source: Source, digest: Digest) -> None:
        upstream.dials.redirect_status = 303
        assert await source.blobs.size(APP, digest) == SIZE
        assert await body(source, digest, SIZE - 10) == upstream.content(digest)[-10:]
        assert [each.method for each in received(upstream, "cdn")] == ["HEAD", "GET"]
        assert upstream.counters.sent() == 10

    async def test_follows__a_relative_location(self, upstream: Upstream, source: Source, digest: Digest) -> None:
        upstream.dials.redirect_relative = True
        assert await body(source, digest) == upstream.content(digest)
        assert received(upstream, "cdn") == []

    @pytest.mark.parametrize("hops", [2, 10])
    async def test_follows__several_hops(self, hops: int, upstream: Upstream, source: Source, digest: Digest) -> None:
        upstream.dials.redirect_hops = hops
        assert await body(source, digest) == upstream.content(digest)
        assert len(received(upstream, "cdn")) == hops

    async def test_follows__a_manifest(self, upstream: Upstream, source: Source) -> None:
        image = upstream.push_image(APP.name, "1", layers=(1_000,))
        upstream.dials.redirect_manifests = True
        assert (await source.manifests.fetch(source.upstream, APP, Tag("1"))).digest == image.index.digest
        assert (
            await source.manifests.head(source.upstream, APP, Tag("1"), lambda _: None)
        ).digest == image.index.digest
        assert len(received(upstream, "cdn")) == 2

    async def test_ends_before_long__in_hops_without_end(
        self, upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        upstream.dials.redirect_hops = 11
        with pytest.raises(RegistryError, match="in a circle or too often") as refused:
            await body(source, digest)
        assert (refused.value.code, refused.value.failure) == (ErrorCode.UNAVAILABLE, Failure.SERVER)
        upstream.dials.redirect_hops = 0
        with pytest.raises(RegistryError, match="in a circle or too often"):
            await body(source, digest)

    async def test_ends_at_once__in_a_circle(self, upstream: Upstream, source: Source, digest: Digest) -> None:
        upstream.dials.redirect_to = f"/v2/{APP.name}/blobs/{digest}"
        with pytest.raises(RegistryError, match="in a circle or too often"):
            await body(source, digest)
        assert len(upstream.counters.headers) <= 6

    @pytest.mark.parametrize(
        "location",
        [
            "http://[::1",
            "http://user:secret@127.0.0.1/",
            "http://\xff\xfe/",
            "http://\uff11\uff12\uff17.0.0.1/",
            "http://h:99999/",
            "http://h:port/",
            "ftp://h/",
            "http://",
            "//",
            "data:,x",
            "mailto:x",
        ],
    )
    async def test_is_an_error__to_what_is_no_address(
        self, location: str, upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        upstream.dials.redirect_to = location
        with pytest.raises(RegistryError) as refused:
            await body(source, digest)
        assert refused.value.code is ErrorCode.UNAVAILABLE
        assert refused.value.failure is not None

    async def test_is_the_upstream_s_failure__to_a_host_that_is_gone(
        self, upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        upstream.dials.redirect_to = "http://storage.invalid/x"
        with pytest.raises(RegistryError, match=r"at storage\.invalid:80 could not be found") as refused:
            await body(source, digest)
        assert refused.value.failure is Failure.DNS

    async def test_is_an_answer_like_others__without_a_location(
        self, upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        upstream.dials.failures.append(bed.Failure(307, kind="blob", body="empty"))
        with pytest.raises(RegistryError, match="status 307") as refused:
            await body(source, digest)
        assert refused.value.failure is Failure.SERVER


class TestCredentials:
    async def test_never_leave__the_registry_s_own_origin(
        self, upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        upstream.push_image(APP.name, "1", layers=(1_000,))
        upstream.dials.auth = "bearer"
        upstream.dials.redirect_manifests = True
        upstream.dials.redirect_hops = 2
        assert await body(source, digest) == upstream.content(digest)
        await source.manifests.fetch(source.upstream, APP, Tag("1"))
        assert all("Authorization" not in each.headers for each in received(upstream, "cdn"))
        authorised = [each for each in received(upstream, "registry") if "Authorization" in each.headers]
        assert len(authorised) == 2

    async def test_stay_behind__even_on_another_port_of_one_host(
        self, upstream: Upstream, source: Source, digest: Digest
    ) -> None:
        upstream.dials.auth = "bearer"
        assert upstream.cdn_url.rpartition(":")[0] == upstream.url.rpartition(":")[0]
        await body(source, digest)
        assert [("Authorization" in each.headers) for each in received(upstream, "cdn")] == [False]

    async def test_go_along__within_the_registry(self, upstream: Upstream, source: Source, digest: Digest) -> None:
        upstream.dials.auth, upstream.dials.redirect_relative, upstream.dials.cdn_strict = "bearer", True, False
        assert await body(source, digest) == upstream.content(digest)
        assert "Authorization" in received(upstream, "registry")[-1].headers

    async def test_are_no_cookies(self, upstream: Upstream, digest: Digest) -> None:
        upstream.dials.cookie, upstream.dials.redirect = "session=1; Path=/", False
        async with asking(upstream.url.replace("127.0.0.1", "localhost")) as source:  # an address keeps no cookies
            await body(source, digest)
            await body(source, digest)
        assert len(upstream.counters.headers) == 2
        assert all("Cookie" not in each.headers for each in upstream.counters.headers)


async def test_says_who_asks__and_wants_no_coding(upstream: Upstream, source: Source, digest: Digest) -> None:
    upstream.dials.auth, upstream.dials.blob_gzip = "bearer", True
    assert await body(source, digest) == upstream.content(digest)
    for each in upstream.counters.headers:
        assert each.headers["Accept-Encoding"] == "identity"
        assert each.headers["User-Agent"] == USER_AGENT


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path: Path) -> Path:
        """Return a PEM file with a key and a certificate for 127.0.0.1."""
        files = ("-keyout", str(tmp_path / "both.pem"), "-out", str(tmp_path / "public.pem"))
        command = (require("openssl"), "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=upstream")
        names = ("-addext", "subjectAltName=IP:127.0.0.1", "-days", "1")
        subprocess.run((*command, *names, *files), check=True, capture_output=True, timeout=60)
        with (tmp_path / "both.pem").open("ab") as file:
            file.write((tmp_path / "public.pem").read_bytes())
        return tmp_path / "both.pem"

    @pytest.fixture
    def secure(self, certificate: Path) -> Iterator[Upstream]:
        with Upstream(certificate=certificate) as running:
            yield running

    @pytest.fixture
    async def trusting(self, secure: Upstream, certificate: Path) -> AsyncIterator[Source]:
        async with asking(secure.url, str(certificate.with_name("public.pem"))) as found:
            yield found

    async def test_is_trusted__by_its_ca_file(self, secure: Upstream, trusting: Source) -> None:
        digest = Digest(secure.push_random_blob(APP.name, SIZE))
        secure.dials.redirect, secure.dials.auth = True, "bearer"
        assert await body(trusting, digest) == secure.content(digest)

    async def test_is_told_apart__from_other_failures(self, secure: Upstream) -> None:
        async with asking(secure.url) as source:
            with pytest.raises(RegistryError, match="failed the TLS handshake") as refused:
                await source.blobs.open(APP, Digest.of(b""), 0)
        assert refused.value.failure is Failure.TLS
        assert source.counted("layover_upstream_requests_total", kind="blob", method="GET", status="tls") == 1

    async def test_is_not_given_up__by_a_redirect(self, secure: Upstream, trusting: Source, upstream: Upstream) -> None:
        digest = Digest(secure.push_random_blob(APP.name, SIZE))
        secure.dials.redirect, secure.dials.redirect_to = True, f"{upstream.url}/stolen"
        with pytest.raises(RegistryError, match="not https"):
            await body(trusting, digest)
        assert upstream.counters.headers == []

    async def test_is_not_given_up__by_a_realm(self, secure: Upstream, trusting: Source, upstream: Upstream) -> None:
        secure.dials.auth = "bearer"
        secure.dials.challenge_extra = [f'Bearer realm="{upstream.url}/token"']
        with pytest.raises(RegistryError, match="not https"):
            await trusting.blobs.open(APP, Digest.of(b""), 0)
        assert upstream.counters.headers == []
