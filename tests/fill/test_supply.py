"""Whom a fill asks next, after one failed."""

from __future__ import annotations

import socket

import pytest

from mirror.fill import Fleet, Leads, Supply
from mirror.fill.lender import Lender, SourceLost
from mirror.fleet import Claim, Filler
from mirror.observe.metrics import HubMetrics, new_registry
from mirror.oci.digest import Digest
from mirror.oci.errors import Failure
from mirror.oci.reference import Repository
from mirror.source.sibling import SiblingError, Siblings
from tests.source.sibling.member import SECRET, Member, sibling_at

_DIGEST = Digest.of(b"a blob")


class _Knowing(Member):
    """A coordinator that knows who holds what."""

    async def claim(self, digest: Digest, suspect: Filler | None = None, *, may_lead: bool = True) -> Claim:
        """Say that all siblings hold it."""
        return Claim(tuple(self.siblings.values()))


class _Following(Member):
    """A coordinator that knows who fills everything for the region."""

    async def claim(self, digest: Digest, suspect: Filler | None = None, *, may_lead: bool = True) -> Claim:
        """Say that `b` does, as long as it beats and is not suspected."""
        return Claim(regional=Filler("b", 1) if "b" in self.siblings and suspect is None else None)


async def test_choose__the_filler_of_the_region_does_not_answer__the_same_while_it_beats() -> None:
    member = _Following("a")
    filler = sibling_at("http://127.0.0.1:1", "b")
    member.siblings = {"b": filler}
    siblings = Siblings(member, lambda: SECRET, HubMetrics(new_registry()))
    upstream = siblings.blobs(sibling_at("http://127.0.0.1:1", "upstream"))
    supply = Supply(Fleet(member, Leads(), siblings), upstream, _DIGEST)
    chosen = await supply.choose()
    assert isinstance(chosen, Lender)
    silent = SiblingError(filler, "gives no sign of life", Failure.TIMEOUT)
    assert isinstance(chosen.failed(silent), SourceLost)
    assert await supply.choose() is chosen
    member.siblings = {}
    assert isinstance(chosen.failed(silent), SourceLost)
    assert await supply.choose() is upstream
    await siblings.close()


async def test_lose__one_of_the_region_that_is_silent__it_is_not_asked_once_more() -> None:
    # What nobody accepts is connected all the same.
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = sibling_at(f"http://127.0.0.1:{server.getsockname()[1]}", "b")
        member = _Knowing("a")
        member.siblings = {"b": silent}
        siblings = Siblings(member, lambda: SECRET, HubMetrics(new_registry()))
        upstream = siblings.blobs(sibling_at("http://127.0.0.1:1", "upstream"))
        supply = Supply(Fleet(member, Leads(), siblings), upstream, _DIGEST)
        try:
            chosen = await supply.choose()
            assert isinstance(chosen, Lender)
            assert chosen.sibling is silent
            with pytest.raises(SourceLost, match="no sign of life"):
                await chosen.open(Repository("docker.io", "library/app"), _DIGEST, 0, 1)
            assert await supply.choose() is upstream
        finally:
            await siblings.close()
