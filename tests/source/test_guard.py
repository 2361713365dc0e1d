"""A public upstream leads nowhere private, and nothing but the proxies is taken from the environment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.oci.reference import Tag
from mirror.source.upstream import Proxies
from mirror.source.upstream.guard import Privacy, is_private
from tests.source.conftest import APP, Source, asking
from tests.upstream import Upstream


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1",
            "127.255.0.1",
            "0.0.0.0",  # noqa: S104 - classified, not listened on
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "::1",
            "::",
            "fe80::1",
            "fe80::1%eth0",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
        ],
    )
    def test_are_private(self, address: str) -> None:
        assert is_private(address)

    @pytest.mark.parametrize("address", ["1.1.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1"])
    def test_are_public(self, address: str) -> None:
        assert not is_private(address)


class TestPublicUpstream:
    @pytest.fixture
    def guarded(self, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Upstream:
        """Return a registry on loopback that the client takes for one on a public address."""

        async def never(*_: object) -> bool:
            return False

        monkeypatch.setattr(Privacy, "is_private", never)
        return upstream

    @pytest.mark.parametrize(
        "host", ["127.0.0.2", "localhost", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "0x7f.1"]
    )
    async def test_is_not_followed__to_a_private_address(self, host: str, guarded: Upstream, source: Source) -> None:
        digest = Digest(guarded.push_random_blob(APP.name, 10))
        guarded.dials.redirect = True
        guarded.dials.redirect_to = f"http://{host}:{guarded.cdn_url.rpartition(':')[2]}/secret"
        with pytest.raises(RegistryError, match="private address") as refused:
            await source.blobs.open(APP, digest, 0)
        assert refused.value.code is ErrorCode.UNAVAILABLE
        assert all(each.origin == "registry" for each in guarded.counters.headers)

    async def test_is_not_followed__to_a_private_realm(self, guarded: Upstream, source: Source) -> None:
        guarded.push_image(APP.name, "1", layers=(10,))
        guarded.dials.auth = "bearer"
        port = guarded.cdn_url.rpartition(":")[2]
        guarded.dials.challenge_extra = [f'Bearer realm="http://localhost:{port}/token",service="x"']
        with pytest.raises(RegistryError, match="private address"):
            await source.manifests.fetch(source.upstream, APP, Tag("1"))
        assert all(each.origin == "registry" for each in guarded.counters.headers)

    async def test_is_not_followed__to_the_private_host_of_another_upstream(self, guarded: Upstream) -> None:
        digest = Digest(guarded.push_random_blob(APP.name, 10))
        guarded.dials.redirect, guarded.dials.cdn_hosts = True, ("localhost",)
        async with asking(guarded.url, others={"inner.example": "http://localhost"}) as source:
            with pytest.raises(RegistryError, match="private address"):
                await source.blobs.open(APP, digest, 0)

    async def test_is_followed__on_its_own_host(self, guarded: Upstream, source: Source) -> None:
        digest = Digest(guarded.push_random_blob(APP.name, 10))
        guarded.dials.redirect = guarded.dials.redirect_relative = True
        assert await source.blobs.size(APP, digest) == 10


async def test_follows__a_private_upstream_to_other_private_hosts(upstream: Upstream, source: Source) -> None:
    digest = Digest(upstream.push_random_blob(APP.name, 10))
    upstream.dials.redirect, upstream.dials.cdn_hosts = True, ("localhost",)
    assert await source.blobs.size(APP, digest) == 10


class TestProxies:
    @asynccontextmanager
    async def proxy(self, asked: list[str]) -> AsyncIterator[str]:
        """Run a proxy that notes what it is asked for, knows nothing, and yield its URL."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append((await reader.readuntil(b"\r\n\r\n")).decode().partition(" HTTP/")[0])
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    @pytest.mark.parametrize("scheme", ["http", "all"])
    async def test_are_asked__instead_of_the_upstream(self, scheme: str) -> None:
        asked: list[str] = []
        async with self.proxy(asked) as url, asking("http://registry.invalid", proxies={scheme: url}) as source:
            with pytest.raises(RegistryError) as refused:
                await source.manifests.fetch(source.upstream, APP, Tag("1"))
        assert refused.value.status == 404
        assert asked == [f"GET http://registry.invalid/v2/{APP.name}/manifests/1"]

    async def test_are_not_asked__for_hosts_that_have_none(self, upstream: Upstream) -> None:
        upstream.push_image(APP.name, "1", layers=(10,))
        asked: list[str] = []
        async with self.proxy(asked) as url, asking(upstream.url, proxies={"http": url, "no": "127.0.0.1"}) as source:
            await source.manifests.fetch(source.upstream, APP, Tag("1"))
        assert asked == []

    def test_come_from_the_environment__alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        assert Proxies.of_environment().of(URL("https://ghcr.io/")) is None
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
        monkeypatch.setenv("NO_PROXY", "quay.io,.internal")
        proxies = Proxies.of_environment()
        assert proxies.of(URL("https://ghcr.io/")) == "http://proxy.example:3128"
        assert [proxies.of(URL(f"https://{host}/")) for host in ("quay.io", "a.internal")] == [None, None]
        assert proxies.of(URL("http://ghcr.io/")) is None
