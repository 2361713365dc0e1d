"""Lookups of names: shared, remembered for a moment, and none that hangs holds up another upstream's."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from mirror.oci.errors import Failure, RegistryError
from mirror.oci.reference import Tag
from mirror.source.upstream.daemons import DaemonThreads
from mirror.source.upstream.names import Names
from tests.source.conftest import APP, asking
from tests.upstream import Upstream


class System:
    """What the operating system answers to lookups; names that begin with `hang` wait until `release`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.addresses = {"public.example": ["1.1.1.1", "2606:4700::1111"]}
        self._released = threading.Event()
        self._real = socket.getaddrinfo

    def lookup(self, host: str, *arguments: object, **options: object) -> object:
        self.asked.append(host)
        if host.startswith("hang"):
            self._released.wait(60)
        addresses = self.addresses.get(host, [])
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [self._found(each) for each in addresses]

    def release(self) -> None:
        self._released.set()

    def _found(self, address: str) -> tuple[object, ...]:
        if ":" in address:
            return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, 0, 0, 7 if address.startswith("fe80") else 0))
        return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    found = System()
    monkeypatch.setattr("mirror.source.upstream.names.socket.getaddrinfo", found.lookup)
    yield found
    found.release()


class TestNames:
    async def test_are_found__with_every_address(self, system: System) -> None:
        names = Names(DaemonThreads())
        found = await names.resolve("public.example", 443)
        assert [(each["host"], each["port"]) for each in found] == [("1.1.1.1", 443), ("2606:4700::1111", 443)]
        assert [each["host"] for each in await names.resolve("public.example", 80, socket.AF_INET)] == ["1.1.1.1"]
        system.addresses["link.example"] = ["fe80::1"]
        assert [each["host"] for each in await names.resolve("link.example")] == ["fe80::1%7"]

    async def test_are_asked_for_once__by_many(self, system: System) -> None:
        names = Names(DaemonThreads())
        await asyncio.gather(*(names.resolve("public.example") for _ in range(100)))
        await names.resolve("public.example")
        assert system.asked == ["public.example"]
        names.forget("public.example")
        await names.resolve("public.example")
        assert system.asked == ["public.example"] * 2

    async def test_are_asked_for_anew__while_they_are_unknown(self, system: System) -> None:
        names = Names(DaemonThreads())
        for _ in range(3):
            with pytest.raises(socket.gaierror):
                await names.resolve("nowhere.example")
        system.addresses["nowhere.example"] = ["1.1.1.1"]
        assert await names.resolve("nowhere.example")

    @pytest.mark.parametrize("host", ["a" * 64 + ".example", "x..example"])
    async def test_are_an_error__where_none_can_be(self, host: str) -> None:
        with pytest.raises(OSError):  # noqa: PT011 - whichever the system has
            await Names(DaemonThreads()).resolve(host)

    async def test_that_hang__are_given_up(self, system: System, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mirror.source.upstream.names._PATIENCE_SECONDS", 0.05)
        names = Names(DaemonThreads())
        for _ in range(3):
            with pytest.raises(socket.gaierror):
                await names.resolve("hang.example")
        assert system.asked == ["hang.example"]
        await names.close()

    async def test_that_hang__take_a_few_threads(self, system: System, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mirror.source.upstream.names._PATIENCE_SECONDS", 0.2)
        names, others = Names(DaemonThreads()), Names(DaemonThreads())
        lookups = [names.resolve(f"hang{number}.example") for number in range(50)]
        results = await asyncio.gather(*lookups, others.resolve("public.example"), return_exceptions=True)
        assert all(isinstance(each, OSError) for each in results[:-1])
        assert len(results[-1]) == 2  # type: ignore[arg-type]
        assert len(system.asked) == 8 + 1
        await names.close()


async def test_one_upstream__is_not_slowed_by_another_s_names(
    upstream: Upstream, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.source.upstream.client.BUDGET_SECONDS", 2.0)
    upstream.push_image(APP.name, "1", layers=(10,))
    system.addresses["good.example"] = ["127.0.0.1"]
    url = upstream.url.replace("127.0.0.1", "good.example")
    async with asking(url) as source:
        hanging = source.upstream._replace(name="hang.example", label="hang.example", url="http://hang.example")
        bad = [asyncio.create_task(source.manifests.fetch(hanging, APP, Tag(str(number)))) for number in range(30)]
        await asyncio.sleep(0)
        await source.manifests.fetch(source.upstream, APP, Tag("1"))
        assert not any(task.done() for task in bad)
        for task in asyncio.as_completed(bad):
            with pytest.raises(RegistryError) as refused:
                await task
            assert refused.value.failure in {Failure.DNS, Failure.TIMEOUT}
            assert refused.value.status == 503
