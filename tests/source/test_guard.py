"""A public upstream leads nowhere private, and nothing but the proxies is taken from the environment."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.oci.reference import Tag
from mirror.source.upstream import Proxies
from mirror.source.upstream.guard import (
    GuardedResolver,
    Privacy,
    PrivateAddressError,
    is_private,
    is_private_literal,
)
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
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::1",
            "2002:a9fe:a9fe::",
            "fec0::1",
            "ff02::1",
            "192.0.0.192",
            "168.63.129.16",
            "224.0.0.1",
            "255.255.255.255",
        ],
    )
    def test_are_private(self, address: str) -> None:
        assert is_private(address)

    @pytest.mark.parametrize(
        "address", ["1.1.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2002:101:101::"]
    )
    def test_are_public(self, address: str) -> None:
        assert not is_private(address)

    @pytest.mark.parametrize(
        "host",
        ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "1.1.1.1.", "x.0x7f", "::1", "a.localhost."],
    )
    def test_are_private__in_every_spelling(self, host: str) -> None:
        assert is_private_literal(host)

    @pytest.mark.parametrize("host", ["1.1.1.1", "2606:4700::1111", "ghcr.io", "0x.example", "1.example"])
    def test_are_no_literals__where_they_need_not_be(self, host: str) -> None:
        assert not is_private_literal(host)


class Turncoat(AbstractResolver):
    """Answers each lookup with the next of some addresses."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = self._answers.pop(0)
        if not found:
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return [ResolveResult(hostname=host, host=each, port=port, family=family, proto=0, flags=0) for each in found]

    async def close(self) -> None:
        """Nothing is open."""


class TestPrivacy:
    async def test_stays_public__what_was_public_once(self) -> None:
        privacy, names = Privacy(), Turncoat(["1.1.1.1"], ["127.0.0.1"])
        assert [await privacy.is_private("evil.example", names) for _ in range(2)] == [False, False]

    async def test_is_not_given__to_names_with_a_public_address(self) -> None:
        assert not await Privacy().is_private("evil.example", Turncoat(["127.0.0.1", "1.1.1.1"]))

    async def test_is_looked_at_again__while_it_is_private_or_unknown(self) -> None:
        privacy, names = Privacy(), Turncoat([], ["10.0.0.1"], ["10.0.0.1"], ["1.1.1.1"], ["10.0.0.1"])
        with pytest.raises(OSError, match="no answer"):
            await privacy.is_private("inner.example", names)
        assert [await privacy.is_private("inner.example", names) for _ in range(4)] == [True, True, False, False]

    async def test_leaves_what_is_public__of_names_that_are_both(self) -> None:
        found = await GuardedResolver(Turncoat(["127.0.0.1", "1.1.1.1", "::ffff:10.0.0.1"])).resolve("evil.example")
        assert [each["host"] for each in found] == ["1.1.1.1"]
        with pytest.raises(PrivateAddressError):
            await GuardedResolver(Turncoat(["127.0.0.1"])).resolve("evil.example")


class TestPublicUpstream:
    @pytest.fixture
    def guarded(self, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Upstream:
        """Return a registry on loopback that the client takes for one on a public address."""

        async def never(*_: object) -> bool:
            return False

        monkeypatch.setattr(Privacy, "is_private", never)
        return upstream

    @pytest.mark.parametrize(
        "host", ["127.0.0.2", "localhost", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "0x7f.1", "2130706433"]
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

    async def test_is_not_dialled__once_its_own_name_turns_inward(
        self, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upstream.push_image(APP.name, "1", layers=(10,))
        answers = Turncoat(["1.1.1.1"], ["127.0.0.1"], ["127.0.0.1"])
        monkeypatch.setattr("mirror.source.upstream.connections.Names", lambda _: answers)
        async with asking(upstream.url.replace("127.0.0.1", "evil.example")) as source:
            with pytest.raises(RegistryError, match="private address"):
                await source.manifests.fetch(source.upstream, APP, Tag("1"))
        assert upstream.counters.headers == []

    async def test_is_followed__on_its_own_host(self, guarded: Upstream, source: Source) -> None:
        digest = Digest(guarded.push_random_blob(APP.name, 10))
        guarded.dials.redirect = guarded.dials.redirect_relative = True
        assert await source.blobs.size(APP, digest) == 10


async def test_follows__an_upstream_with_a_private_name_anywhere(upstream: Upstream) -> None:
    digest = Digest(upstream.push_random_blob(APP.name, 10))
    upstream.dials.redirect, upstream.dials.cdn_hosts = True, ("127.0.0.1", "localhost")
    async with asking(upstream.url.replace("127.0.0.1", "localhost")) as source:
        assert [await source.blobs.size(APP, digest) for _ in range(2)] == [10, 10]


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

    @pytest.mark.parametrize("host", ["169.254.169.254", "[::1]", "localhost", "0x7f.1", "2130706433"])
    async def test_are_not_asked__for_private_addresses_that_a_public_upstream_leads_to(self, host: str) -> None:
        asked: list[str] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(f"HTTP/1.1 307 Go\r\nLocation: http://{host}/\r\nContent-Length: 0\r\n\r\n".encode())
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            proxies = {"all": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}
            async with asking("http://registry.invalid", proxies=proxies) as source:
                with pytest.raises(RegistryError, match="private address"):
                    await source.manifests.fetch(source.upstream, APP, Tag("1"))
        assert len(asked) == 1

    async def test_are_asked__for_private_addresses_by_an_upstream_on_one(self) -> None:
        asked: list[str] = []
        async with self.proxy(asked) as url, asking("http://10.1.1.1", proxies={"http": url}) as source:
            with pytest.raises(RegistryError) as refused:
                await source.manifests.fetch(source.upstream, APP, Tag("1"))
        assert (refused.value.status, len(asked)) == (404, 1)

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
