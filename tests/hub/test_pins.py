"""What is pinned stays, with all below it, wherever its tag moves and however little room there is."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.reader import Client, get
from tests.chaos.scene import MIB, eventually
from tests.operator import files, hexes, told
from tests.replica import NO_PREFETCH, Replica
from tests.upstream import Image, Upstream

APP = "docker.io/library/app:1"
_ROUNDS = 12


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def replica(upstream: Upstream, tmp_path: Path) -> Iterator[Replica]:
    settings = {
        **NO_PREFETCH,
        "LAYOVER_SERVER__WORKERS": "1",
        "LAYOVER_STORE__SIZE": "8MiB",
        "LAYOVER_STORE__MIN_FREE": "0%",
        "LAYOVER_FRESHNESS__TAG_TTL": "1ms",
    }
    with Replica(tmp_path / "store", upstreams={"docker.io": upstream.url}, settings=settings) as running:
        yield running


def pull(replica: Replica, image: Image) -> None:
    Client(replica.url, image).wait().assert_whole()


def flood(upstream: Upstream, replica: Replica, name: str) -> None:
    """Pull far more than there is room for."""
    for number in range(_ROUNDS):
        pull(replica, upstream.push_image(f"library/{name}", str(number), ["linux/amd64"], [MIB], number, raw=True))


def is_pinned(replica: Replica, image: Image) -> bool:
    """Say whether a report calls all of an image pinned."""
    parts = told(replica, "GET", "/inspect", what=APP)["parts"]
    pinned = {part["digest"].partition(":")[2] for part in parts if part["is_pinned"]}
    return hexes(image) <= pinned


def test_stays__what_is_pinned__as_its_tag_moves(upstream: Upstream, replica: Replica) -> None:
    old = upstream.push_image("library/app", "1", ["linux/amd64"], [MIB, 20_000], 100, raw=True)
    told(replica, "POST", "/pins", {"what": "app:1"})
    pull(replica, old)
    eventually(lambda: is_pinned(replica, old), "it is pinned")
    flood(upstream, replica, "first")
    assert hexes(old) <= files(replica)
    new = upstream.push_image("library/app", "1", ["linux/amd64"], [MIB, 30_000], 200, raw=True)
    pull(replica, new)
    eventually(lambda: is_pinned(replica, new), "so is what the tag moved to")
    flood(upstream, replica, "second")
    assert hexes(new) <= files(replica)
    assert not hexes(old) - hexes(new) <= files(replica)
    told(replica, "DELETE", "/pins", what="app:1")
    flood(upstream, replica, "third")
    assert not hexes(new) <= files(replica)


def test_goes__what_is_purged__and_the_pin_stays(upstream: Upstream, replica: Replica) -> None:
    image = upstream.push_image("library/app", "1", ["linux/amd64"], [20_000], raw=True)
    told(replica, "POST", "/pins", {"what": "docker.io/library/*"})
    pull(replica, image)
    eventually(lambda: hexes(image) <= files(replica), "it is held")
    told(replica, "POST", "/purge", {"what": "app:1"})
    assert not hexes(image) & files(replica)
    assert [each["what"] for each in told(replica, "GET", "/pins")["pins"]] == ["docker.io/library/*"]
    pull(replica, image)
    with contextlib.suppress(AssertionError):
        eventually(lambda: is_pinned(replica, image), "it is pinned anew")
    assert is_pinned(replica, image)


def test_tells__a_hit_at_once_and_a_miss_for_good(upstream: Upstream, replica: Replica) -> None:
    image = upstream.push_image("library/told", "1", ["linux/amd64"], [20_000], raw=True)
    digest = image.index.digest

    def last_pull() -> dict[str, Any]:
        return dict(told(replica, "GET", "/inspect", what=f"told@{digest}")["last_pull"])

    def pull_manifest() -> None:
        assert get(replica.url, f"/v2/library/told/manifests/{digest}").status == 200

    pull_manifest()
    first = last_pull()
    assert first["outcome"] == "miss"
    time.sleep(2)  # doors have told what was used, and when
    assert last_pull() == first
    pull_manifest()
    assert last_pull()["outcome"] == "hit"


def test_tells__why_it_was_a_hit_or_a_miss_and_what_was_evicted(upstream: Upstream, replica: Replica) -> None:
    image = upstream.push_image("library/app", "1", ["linux/amd64"], [MIB], raw=True)
    pull(replica, image)
    first = told(replica, "GET", "/inspect", what="app:1")
    assert first["last_pull"]["outcome"] == "miss"
    assert "was not held" in first["last_pull"]["why"]
    assert [part["last_pull"]["outcome"] for part in first["parts"] if part["kind"] == "blob"] == ["miss", "miss"]
    pull(replica, image)
    outcome = told(replica, "GET", "/inspect", what="app:1")["last_pull"]["outcome"]
    assert outcome == "revalidated"
    flood(upstream, replica, "other")

    def reasons() -> set[str]:
        reports = [told(replica, "GET", "/inspect", what=f"other:{number}") for number in range(_ROUNDS)]
        return {part["evicted"]["reason"] for each in reports for part in each["parts"] if part["evicted"] is not None}

    eventually(lambda: reasons() == {"pressure"}, "it says why layers went", 20.0)
