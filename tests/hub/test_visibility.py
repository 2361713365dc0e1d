"""How the mirror finds out what is public: by one question an hour, as nobody; with no answer, the last one counts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.oci.reference import Repository
from mirror.store import Shelf
from tests.chaos.scene import name_of
from tests.conformance.wire import Door, assert_error
from tests.hub import policy
from tests.hub.policy import BLOB, BY_DIGEST, BY_TAG, KINDS, Kind
from tests.replica import Replica
from tests.upstream import Failure, Image, Upstream
from tests.workers.family import Family, until

HOUR = 3600.0
LATE = Kind("GET", "expired tag")
TAGS = Kind("GET", "tags")
WARM = [kind for kind in KINDS if kind.what in {"tag", "digest", "blob", "range"}]
_IMAGES = 24


@dataclass
class Stock:
    """A store that no replica runs on, and the public images that it holds, each for one test."""

    store: Path
    images: list[Image]

    def copy(self, folder: Path) -> Path:
        """Return a copy of the store, for a replica."""
        shutil.copytree(self.store, folder / "store")
        return folder / "store"


@dataclass
class HourLater:
    """A replica whose verdicts are an hour old, but for the last two, and the images that they are about."""

    replica: Replica
    public: list[Image] = field(default_factory=list)
    private: list[Image] = field(default_factory=list)
    just_public: list[Image] = field(default_factory=list)
    just_private: list[Image] = field(default_factory=list)


@pytest.fixture(scope="module")
def shared(registry: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """Run one replica for all tests that need no state of their own."""
    with policy.replica(tmp_path_factory.mktemp("shared") / "store", registry) as running:
        yield running


def _stock(upstream: Upstream, store: Path, *, member: bool) -> Stock:
    policy.guard(upstream)
    images = [policy.push(upstream, f"{store.parent.name}/image{number}") for number in range(_IMAGES)]
    with policy.replica(store, upstream, "anyone", member=member) as running:
        for image in images:
            assert statuses(running, image) == {200, 206}
        assert running.stop() == 0
    return Stock(store, images)


@pytest.fixture(scope="module")
def stock(registry: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Stock:
    """Return a store that was filled with credentials while nobody asked what is public."""
    return _stock(registry, tmp_path_factory.mktemp("stock") / "store", member=True)


@pytest.fixture(scope="module")
def open_stock(registry: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Stock:
    """Return a store that was filled without credentials."""
    return _stock(registry, tmp_path_factory.mktemp("open") / "store", member=False)


@pytest.fixture(scope="module")
def hour_later(registry: Upstream, stock: Stock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HourLater]:
    store = stock.copy(tmp_path_factory.mktemp("later"))
    images = list(stock.images)
    groups = [[images.pop() for _ in range(count)] for count in (4, 5, 1, 1)]
    ages = ((False, HOUR), (True, HOUR), (False, HOUR / 2), (True, HOUR / 2))
    verdicts = zip(groups, ages, strict=True)
    policy.judge(store, *((image, *age) for group, age in verdicts for image in group))
    with policy.replica(store, registry, settings={"LAYOVER_FRESHNESS__REVALIDATE_TIMEOUT": "5s"}) as running:
        yield HourLater(running, *groups)


@pytest.fixture(autouse=True)
def _open(registry: Upstream) -> Iterator[None]:
    """Have the registry be well, everything public, and nothing counted."""
    policy.guard(registry)
    registry.counters.clear()
    yield
    registry.resume()
    registry.reset()


@pytest.fixture
def image(registry: Upstream, request: pytest.FixtureRequest) -> Image:
    """Return an image of a repository that no other test has, and nobody pulled."""
    return policy.push(registry, name_of(request))


def close(upstream: Upstream, image: Image) -> None:
    """Have the registry give an image to its members alone from now on."""
    upstream.dials.private = {*upstream.dials.private, image.repository}


def statuses(running: Replica, image: Image) -> set[int]:
    return set(policy.pull_all(running, image))


def lines(running: Replica, image: Image) -> list[str]:
    """Return what the replica's log says of an image's repository, its requests apart."""
    found = [json.loads(line) for line in running.log.read_text().splitlines() if line.startswith("{")]
    return [line["event"] for line in found if line.get("repository") == f"docker.io/{image.repository}"]


class TestCold:
    def test_asks_once__what_is_public(self, registry: Upstream, shared: Replica, image: Image) -> None:
        assert statuses(shared, image) == {200, 206}
        assert policy.asked_as_nobody(registry, image.repository) == [("HEAD", f"manifests/{policy.TAG}")]

    def test_asks_once__what_is_private_and_fetches_nothing(
        self, registry: Upstream, shared: Replica, image: Image
    ) -> None:
        close(registry, image)
        for _ in range(2):
            assert statuses(shared, image) == {403}
        assert policy.asked_as_nobody(registry, image.repository) == [("HEAD", f"manifests/{policy.TAG}")]
        assert not any(each.holds(policy.SECRET) for each in registry.counters.headers)
        assert lines(shared, image) == ["a repository is private and is not served"]
        assert shared.metric("layover_requests_total", outcome="denied", kind="blob") > 0

    def test_asks_once__for_a_crowd(self, registry: Upstream, shared: Replica, image: Image) -> None:
        close(registry, image)
        registry.dials.latency = {"manifest": 0.1, "blob": 0.1}
        with ThreadPoolExecutor(20) as crowd:
            kinds = [kind for kind in KINDS for _ in range(5)]
            answers = list(crowd.map(lambda kind: kind.ask(shared, image), kinds))
        assert {answer.status for answer in answers} == {403}
        assert len(policy.asked_as_nobody(registry, image.repository)) == 1

    def test_asks_for_the_blob__where_that_is_what_is_wanted(
        self, registry: Upstream, shared: Replica, image: Image
    ) -> None:
        registry.dials.redirect, registry.dials.cdn_head_status = True, 403
        policy.assert_right(registry, image, BLOB, BLOB.ask(shared, image))
        path = f"blobs/{image.layers[0].digest}"
        assert policy.asked_as_nobody(registry, image.repository) == [("HEAD", path), ("GET", path)]

    @pytest.mark.parametrize("status", [403, 404, 405, 503])
    def test_asks_by_get__where_the_head_is_refused(
        self, registry: Upstream, shared: Replica, image: Image, status: int
    ) -> None:
        registry.dials.manifest_head_status = status
        policy.assert_right(registry, image, BY_TAG, BY_TAG.ask(shared, image))
        assert policy.asked_as_nobody(registry, image.repository)[-1] == ("GET", f"manifests/{policy.TAG}")

    @pytest.mark.parametrize("dials", [{"private_status": 403}, {"anonymous": False}, {"token_denied": 403}])
    def test_is_refused__however_the_upstream_says_so(
        self, registry: Upstream, shared: Replica, image: Image, dials: dict[str, object]
    ) -> None:
        close(registry, image)
        for dial, value in dials.items():
            setattr(registry.dials, dial, value)
        assert statuses(shared, image) == {403}
        assert lines(shared, image) == ["a repository is private and is not served"]

    def test_is_not_private__because_its_storage_refuses_everybody(
        self, registry: Upstream, shared: Replica, image: Image
    ) -> None:
        registry.dials.redirect, registry.dials.cdn_uses = True, 0
        assert BLOB.ask(shared, image).status >= 400
        registry.dials.cdn_uses = None
        until(lambda: BLOB.ask(shared, image).status == 200, "it is asked again")
        assert lines(shared, image) == []

    def test_is_refused__what_the_upstream_hides_from_strangers(
        self, registry: Upstream, shared: Replica, image: Image
    ) -> None:
        registry.dials.failures = [Failure(status=404, repository=image.repository, times=2)]
        for _ in range(2):
            policy.assert_denied(image, BY_TAG, BY_TAG.ask(shared, image))

    def test_is_served__when_only_the_credentials_are_refused(
        self, registry: Upstream, tmp_path: Path, image: Image
    ) -> None:
        private = policy.push(registry, f"{image.repository}-private")
        close(registry, private)
        registry.dials.users = {policy.USER: "changed"}
        with policy.replica(tmp_path / "store", registry) as running:
            assert statuses(running, image) == {200, 206}
            assert statuses(running, private) == {403}

    def test_keeps_what_errors_mean__where_nothing_is_held(
        self, registry: Upstream, tmp_path: Path, image: Image
    ) -> None:
        with policy.replica(tmp_path / "store", registry) as running:
            missing = f"/v2/{image.repository}/manifests/none"
            assert_error(Door(running.port).get(missing), 404, "MANIFEST_UNKNOWN")
            registry.dials.failures = [Failure(status=429, repository=image.repository, retry_after="77")]
            answer = BY_TAG.ask(running, image)
            assert_error(answer, 429, "TOOMANYREQUESTS")
            assert 70 <= int(answer.headers["Retry-After"]) <= 77
            asked = len(registry.counters.headers)
            assert statuses(running, image) == {429}
            assert len(registry.counters.headers) - asked < len(KINDS) - 1

    def test_ends_in_time__where_the_upstream_never_answers(
        self, registry: Upstream, tmp_path: Path, image: Image
    ) -> None:
        registry.dials.black_hole = {"*"}
        with policy.replica(tmp_path / "store", registry) as running:
            began = time.monotonic()
            assert BY_TAG.ask(running, image).status == 503
            assert time.monotonic() - began < 15


class TestPolicy:
    def test_asks_nothing__where_anyone_may_have_everything(
        self, registry: Upstream, stock: Stock, tmp_path: Path
    ) -> None:
        image = stock.images[0]
        close(registry, image)
        with policy.replica(stock.copy(tmp_path), registry, "anyone") as running:
            assert statuses(running, image) == {200, 206}
            assert policy.asked_as_nobody(registry, image.repository) == []

    def test_asks_nothing_more__without_credentials(self, registry: Upstream, tmp_path: Path, image: Image) -> None:
        with policy.replica(tmp_path / "store", registry, member=False) as running:
            for kind in (BY_TAG, BY_DIGEST, BLOB):
                policy.assert_right(registry, image, kind, kind.ask(running, image))
        asked = policy.asked_as_nobody(registry, image.repository)
        assert asked == [("GET", f"manifests/{policy.TAG}"), ("GET", f"blobs/{image.layers[0].digest}")]

    def test_keeps_what_credentials_opened__when_they_are_gone(
        self, registry: Upstream, stock: Stock, tmp_path: Path
    ) -> None:
        private, public = stock.images[:2]
        close(registry, private)
        with policy.replica(stock.copy(tmp_path), registry, member=False) as running:
            for _ in range(2):
                assert statuses(running, private) == {403}
                assert statuses(running, public) == {200, 206}
            registry.pause()
            assert statuses(running, private) == {403}
            assert statuses(running, public) == {200, 206}

    def test_serves_what_it_holds__when_credentials_came_later(
        self, registry: Upstream, open_stock: Stock, tmp_path: Path
    ) -> None:
        private, public = open_stock.images[:2]
        close(registry, private)
        with policy.replica(open_stock.copy(tmp_path), registry) as running:
            registry.pause()
            for kind in WARM:
                policy.assert_right(registry, public, kind, kind.ask(running, public))
            registry.resume()
            until(lambda: statuses(running, private) == {403}, "it is found to be private")
            assert statuses(running, public) == {200, 206}

    def test_lists_no_name__of_what_is_private(self, registry: Upstream, stock: Stock, tmp_path: Path) -> None:
        private, public = stock.images[:2]
        close(registry, private)

        def names(running: Replica) -> list[str]:
            return list(Door(running.port).get("/v2/_catalog").document["repositories"])

        store = stock.copy(tmp_path)
        with policy.replica(store, registry, "anyone") as running:
            assert len(names(running)) == _IMAGES
            running.stop()
        with policy.replica(store, registry) as running:
            assert names(running) == []
            assert [BY_TAG.ask(running, each).status for each in (private, public)] == [403, 200]
            assert names(running) == [f"docker.io/{public.repository}"]


class TestAnHour:
    def test_passes__and_a_warm_hit_asks_nothing(self, registry: Upstream, hour_later: HourLater) -> None:
        image = hour_later.public.pop()
        for kind in WARM:
            policy.assert_right(registry, image, kind, kind.ask(hour_later.replica, image))
        assert registry.counters.requests(repository=image.repository) == 0

    @pytest.mark.parametrize("kind", [LATE, TAGS], ids=str)
    def test_passes__and_what_is_private_now_is_refused_at_the_next_question(
        self, registry: Upstream, hour_later: HourLater, kind: Kind
    ) -> None:
        image = hour_later.public.pop()
        close(registry, image)
        # Whoever asks as nobody is told by GET alone, and so later than the mirror hears that the tag has not moved.
        registry.dials.private_status = 403
        registry.dials.latency = {"manifest": 0.1}
        policy.assert_denied(image, kind, kind.ask(hour_later.replica, image))
        asked = policy.asked_as_nobody(registry, image.repository)
        assert statuses(hour_later.replica, image) == {403}
        assert policy.asked_as_nobody(registry, image.repository) == asked

    def test_passes__and_what_is_still_private_is_not_told_again(
        self, registry: Upstream, hour_later: HourLater
    ) -> None:
        image = hour_later.private.pop()
        close(registry, image)
        assert statuses(hour_later.replica, image) == {403}
        assert len(policy.asked_as_nobody(registry, image.repository)) == 1
        assert lines(hour_later.replica, image) == []

    def test_does_not_pass__and_nobody_asks(self, registry: Upstream, hour_later: HourLater) -> None:
        private, public = hour_later.just_private.pop(), hour_later.just_public.pop()
        close(registry, public)
        assert statuses(hour_later.replica, private) == {403}
        assert statuses(hour_later.replica, public) == {200, 206}
        assert policy.asked_as_nobody(registry, private.repository) == []
        assert policy.asked_as_nobody(registry, public.repository) == []

    @pytest.mark.parametrize("kind", [BY_TAG, BY_DIGEST, BLOB, TAGS], ids=str)
    def test_passes__and_what_is_public_now_is_served(
        self, registry: Upstream, hour_later: HourLater, kind: Kind
    ) -> None:
        image = hour_later.private.pop()
        policy.assert_right(registry, image, kind, kind.ask(hour_later.replica, image))
        assert statuses(hour_later.replica, image) == {200, 206}
        assert lines(hour_later.replica, image) == ["a repository that was private is public"]
        assert len(policy.asked_as_nobody(registry, image.repository)) == 1

    @pytest.mark.parametrize("status", [404, 429, 503])
    def test_passes__and_the_last_answer_counts_when_there_is_no_other(
        self, registry: Upstream, stock: Stock, tmp_path: Path, status: int
    ) -> None:
        private, public = stock.images[:2]
        store = stock.copy(tmp_path)
        policy.judge(store, (private, True, HOUR), (public, False, HOUR))
        registry.dials.failures = [Failure(status=status)]
        with policy.replica(store, registry) as running:
            for kind in WARM:
                policy.assert_denied(private, kind, kind.ask(running, private))
                policy.assert_right(registry, public, kind, kind.ask(running, public))

    def test_passes__and_who_need_not_wait_waits_no_longer(
        self, registry: Upstream, stock: Stock, tmp_path: Path
    ) -> None:
        image = stock.images[0]
        store = stock.copy(tmp_path)
        policy.judge(store, (image, False, HOUR))
        registry.dials.black_hole = {"*"}
        settings = {"LAYOVER_FRESHNESS__REVALIDATE_TIMEOUT": "2s"}
        with policy.replica(store, registry, settings=settings) as running:
            began = time.monotonic()
            policy.assert_right(registry, image, LATE, LATE.ask(running, image))
            # Where the tag points, and whether all may have it, was asked at the same time.
            assert time.monotonic() - began < 3.8


class TestListings:
    def test_find_out_for_all__where_nothing_is_held(self, registry: Upstream, shared: Replica, image: Image) -> None:
        policy.assert_right(registry, image, TAGS, TAGS.ask(shared, image))
        assert statuses(shared, image) == {200, 206}
        assert policy.asked_as_nobody(registry, image.repository) == [("GET", "tags/list?n=1")]

    def test_are_refused__and_tell_nothing_of_what_can_be_pulled(
        self, registry: Upstream, shared: Replica, image: Image
    ) -> None:
        registry.dials.failures = [Failure(status=401, kind="tags", repository=image.repository)]
        policy.assert_denied(image, TAGS, TAGS.ask(shared, image))
        registry.dials.failures = []
        policy.assert_denied(image, TAGS, TAGS.ask(shared, image))
        policy.assert_right(registry, image, BY_TAG, BY_TAG.ask(shared, image))
        policy.assert_right(registry, image, TAGS, TAGS.ask(shared, image))
        assert ("HEAD", f"manifests/{policy.TAG}") in policy.asked_as_nobody(registry, image.repository)

    def test_ask_for_what_is_held__or_else_for_the_list(self, registry: Upstream, stock: Stock, tmp_path: Path) -> None:
        held, gone = stock.images[-2:]
        for tag in (policy.TAG, policy.EXPIRED):
            registry.remove(gone.repository, tag)
        with policy.replica(stock.copy(tmp_path), registry) as running:
            assert [TAGS.ask(running, each).status for each in (held, gone)] == [200, 200]
        asked = [policy.asked_as_nobody(registry, each.repository) for each in (held, gone)]
        assert asked[0] == [("HEAD", f"manifests/{policy.TAG}")]
        assert asked[1][-1] == ("GET", "tags/list?n=1")


def test_endpoints_are_not_asked__what_is_public(registry: Upstream, tmp_path: Path, image: Image) -> None:
    close(registry, image)
    with Upstream() as endpoint:
        policy.push(endpoint, image.repository)
        account = {"username": policy.USER, "password": policy.SECRET}
        table = {"url": registry.url, "endpoints": [endpoint.url], **account}
        with Replica(tmp_path / "store", upstreams={"docker.io": table}) as running:
            assert statuses(running, image) == {403}
        assert endpoint.counters.requests() == 0


def test_doors_decide__while_the_hub_is_stopped(registry: Upstream, stock: Stock, tmp_path: Path) -> None:
    private, public = stock.images[:2]
    close(registry, private)
    table = {"docker.io": {"url": registry.url, "username": policy.USER, "password": policy.SECRET}}
    settings = {**policy.FRESHNESS, "LAYOVER_UPSTREAMS": json.dumps(table)}
    with Family(stock.copy(tmp_path), registry, settings) as family:

        def decide(image: Image, *expected: int) -> bool:
            return {kind.ask(family.replica, image).status for kind in WARM} <= set(expected)

        until(lambda: decide(public, 200, 206) and decide(private, 403), "it is found out")
        shelf = Shelf(family.replica.store, remembers_tags=False)
        shelf.follow(shelf.readers())
        until(lambda: len(shelf.verdicts()) == 2, "it is written down")
        shelf.close()
        hub = family.hub
        assert hub is not None
        os.kill(hub, signal.SIGSTOP)
        try:
            for _ in range(4):
                assert decide(public, 200, 206)
                assert decide(private, 403)
        finally:
            os.kill(hub, signal.SIGCONT)


async def test_streams_are_refused__too(registry: Upstream, tmp_path: Path, image: Image) -> None:
    close(registry, image)
    table = {"url": registry.url, "username": policy.USER, "password": policy.SECRET}
    async with policy.hub(tmp_path / "store", table) as hub:
        with pytest.raises(RegistryError) as refused:
            await hub.stream(Repository("docker.io", image.repository), Digest(image.layers[0].digest), 0)
    assert refused.value.code is ErrorCode.DENIED
