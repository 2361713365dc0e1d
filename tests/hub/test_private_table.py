"""Who is given what: public or private, by which policy, with the upstream there or not, by every kind of request."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hub import policy
from tests.hub.policy import KINDS, Kind
from tests.replica import Replica
from tests.upstream import Image, Upstream

VISIBILITIES = ("public", "private")
_DOORS = {"LAYOVER_SERVER__WORKERS": "2"}


@dataclass(frozen=True)
class World:
    """A replica in some state, the images that clients ask it for, and what decides about them."""

    rule: str
    state: str
    replica: Replica
    upstream: Upstream

    def image(self, visibility: str, kind: Kind) -> Image:
        """Return the image that a kind of request asks for: of a repository of its own, where nothing is held."""
        name = f"corp/{visibility}"
        return policy.push(self.upstream, f"{name}-{kind.slug}" if "cold" in self.state else name)

    def check(self, visibility: str, kind: Kind) -> None:
        """Send a request, and check that it is answered as the policy says."""
        image = self.image(visibility, kind)
        answer = kind.ask(self.replica, image)
        is_known = "nobody asked" not in self.state
        if self.rule == "refuse" and (visibility == "private" or not is_known) and self.state != "cold outage":
            policy.assert_denied(image, kind, answer)
        elif self.state == "cold outage":
            assert answer.status == 503
        else:
            policy.assert_right(self.upstream, image, kind, answer)


@dataclass(frozen=True)
class Stores:
    """Where stores are made."""

    upstream: Upstream
    folder: Path

    def filled(self) -> Path:
        """Return a store that was filled while everybody could have everything; to be copied."""
        store = self.folder / "filled"
        if not store.exists():
            with policy.replica(store, self.upstream, "anyone") as running:
                for each in VISIBILITIES:
                    assert set(policy.pull_all(running, policy.push(self.upstream, f"corp/{each}"))) == {200, 206}
                assert running.stop() == 0
        return store

    def judged(self) -> Path:
        """Return such a store whose replica has found out since what is public; to be copied."""
        store = self.folder / "judged"
        if not store.exists():
            shutil.copytree(self.filled(), store)
            with policy.replica(store, self.upstream) as running:
                images = [policy.push(self.upstream, f"corp/{each}") for each in VISIBILITIES]
                assert [policy.BY_TAG.ask(running, image).status for image in images] == [200, 403]
                assert running.stop() == 0
        return store


@pytest.fixture(scope="module")
def registry() -> Iterator[Upstream]:
    with Upstream() as upstream:
        policy.guard(upstream, ["corp/private", *(f"corp/private-{kind.slug}" for kind in KINDS)])
        yield upstream


@pytest.fixture(scope="module")
def stores(registry: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return Stores(registry, tmp_path_factory.mktemp("stores"))


@pytest.fixture(
    scope="module",
    params=[
        ("refuse", "cold"),
        ("anyone", "cold"),
        ("refuse", "warm"),
        ("anyone", "warm"),
        ("refuse", "warm, two doors"),
        ("anyone", "outage"),
        ("refuse", "outage"),
        ("refuse", "outage, two doors"),
        ("refuse", "outage, nobody asked before"),
        ("refuse", "cold outage"),
    ],
    ids=lambda each: f"{each[0]}, {each[1]}",
)
def world(
    request: pytest.FixtureRequest, registry: Upstream, stores: Stores, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    rule, state = request.param
    store = tmp_path_factory.mktemp("world") / "store"
    if "cold" not in state:
        is_known = rule == "refuse" and "outage" in state and "nobody" not in state
        shutil.copytree(stores.judged() if is_known else stores.filled(), store)
    with policy.replica(store, registry, rule, settings=_DOORS if "two doors" in state else {}) as running:
        if "outage" in state:
            registry.pause()
        yield World(rule, state, running, registry)
        registry.resume()
        log = running.log.read_text()
        assert policy.SECRET not in log
        assert '"level":"error"' not in log


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("visibility", VISIBILITIES)
def test_pull(world: World, visibility: str, kind: Kind) -> None:
    world.check(visibility, kind)
    world.check(visibility, kind)
