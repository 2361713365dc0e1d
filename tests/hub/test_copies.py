"""Manifests from siblings: the upstream may be quicker than many that do not have them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import SimpleNamespace

import pytest
from aiohttp import web

from mirror.fleet import Sibling
from mirror.hub.copies import Copies
from mirror.observe.metrics import HubMetrics, new_registry
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.source.sibling import Siblings
from tests.source.sibling.impostor import Handler, lying, posing
from tests.source.sibling.member import SECRET, Member

_BODY = b'{"schemaVersion": 2}'
_APP = Repository("docker.io", "library/app")


class _Fleet(Member):
    """Siblings that all are said to hold a manifest; each takes `seconds` to answer, the last one of them with it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__("a")
        self.asked = ""
        self.seconds = 0.0
        self._now = 1000.0
        # The event loop goes by the real clock.
        monkeypatch.setattr("mirror.hub.copies.time", SimpleNamespace(monotonic=lambda: self._now))

    async def holders(self, digest: Digest) -> tuple[Sibling, ...]:
        """Say that all siblings hold it."""
        return tuple(self.siblings.values())

    async def answer(self, identity: str, request: web.BaseRequest) -> web.StreamResponse:
        """Answer as one of them."""
        self.asked += identity
        self._now += self.seconds
        return await lying(_BODY, 200 if identity == max(self.siblings) else 404)(request)


@pytest.fixture
async def fleet(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[_Fleet]:
    fleet = _Fleet(monkeypatch)

    def handler(identity: str) -> Handler:
        return lambda request: fleet.answer(identity, request)

    async with AsyncExitStack() as running:
        fleet.siblings = {
            identity: await running.enter_async_context(posing(handler(identity), identity)) for identity in "bcde"
        }
        yield fleet


@pytest.fixture
async def copies(fleet: _Fleet) -> AsyncIterator[Copies]:
    siblings = Siblings(fleet, lambda: SECRET, HubMetrics(new_registry()))
    yield Copies(fleet, siblings)
    await siblings.close()


@pytest.mark.parametrize(
    ("there", "seconds", "asked"),
    [("bcd", 0.0, "bcd"), ("bcd", 1.0, "bcd"), ("bcd", 1.1, "bc"), ("bc", 2.1, "b"), ("bcde", 0.0, "bcd")],
    ids=["at once", "2 s in all", "longer", "one alone", "a fourth"],
)
async def test_of_any__asks_three__and_nobody_else_after_two_seconds(
    fleet: _Fleet, copies: Copies, there: str, seconds: float, asked: str
) -> None:
    fleet.siblings = {identity: fleet.siblings[identity] for identity in there}
    fleet.seconds = seconds
    found = await copies.of_any(_APP, Digest.of(_BODY), None)
    assert fleet.asked == asked
    assert (found is not None) == (asked == there)
    assert found is None or found.body == _BODY


async def test_of__who_is_said_to_have_it__asks_nobody_else(fleet: _Fleet, copies: Copies) -> None:
    found = await copies.of("e", _APP, Digest.of(_BODY), None)
    assert found is not None
    assert found.body == _BODY
    assert await copies.of("b", _APP, Digest.of(_BODY), None) is None
    assert fleet.asked == "eb"


async def test_of__one_that_is_gone__asks_nobody(fleet: _Fleet, copies: Copies) -> None:
    assert await copies.of("f", _APP, Digest.of(_BODY), None) is None
    assert fleet.asked == ""
