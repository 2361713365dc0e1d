"""Pulls through one real replica from every registry of the world, as each behaves: anonymously and logged in."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, NamedTuple

import pytest

from mirror.oci.digest import Digest
from tests.conformance.wire import Answer, Door, assert_error
from tests.profiles.place import assert_discreet
from tests.replica import NO_PREFETCH, Replica
from tests.upstream import Image, Upstream
from tests.upstream.profiles import PROFILES, Profile

Caller = Literal["anonymous", "login", "wrong"]
"""As whom the mirror asks: as nobody, with the right password, or with another one."""

# A tag whose time to live is over at once.
MOVING = "moving"


@dataclass(frozen=True)
class Bed:
    """Every registry, and the one replica in front of all."""

    upstreams: dict[str, Upstream]
    door: Door


@dataclass(frozen=True)
class Scene:
    """One registry, and the mirror's name for it."""

    profile: Profile
    upstream: Upstream
    door: Door
    caller: Caller
    repository: str

    def push(self, tag: str = "1", seed: str = "") -> Image:
        """Push an image of two platforms whose content no other repository has."""
        number = zlib.crc32(f"{self.profile.name} {self.repository} {tag} {seed}".encode())
        return self.upstream.push_image(self.repository, tag, layers=(2_000, 100_000), seed=number)

    def ask(self, path: str, method: str = "GET", repository: str = "") -> Answer:
        """Send a request for something of the repository to the replica."""
        query = "&" if "?" in path else "?"
        name = _name(self.profile, self.caller)
        return self.door.ask(method, f"/v2/{repository or self.repository}/{path}{query}ns={name}")

    def pull(self, image: Image) -> None:
        """Pull as a client does that wants every platform: tag, index, manifests, configs, layers."""
        self.fetch(f"manifests/{image.tag}", image.index.digest)
        for manifest in (image.index, *image.manifests):
            self.fetch(f"manifests/{manifest.digest}", manifest.digest)
        for blob in image.blobs:
            self.fetch(f"blobs/{blob.digest}", blob.digest)

    def fetch(self, path: str, digest: str) -> None:
        """Fetch content whole, and check that it is what it should be."""
        answer = self.ask(path)
        assert answer.status == 200, (path, answer.body[:500])
        assert Digest.of(answer.body) == digest, path
        assert answer.headers["Docker-Content-Digest"] == digest

    def assert_nothing_leaked(self) -> None:
        """Check that the password went only where the registry takes it, and no Authorization to its storage."""
        counters, dials = self.upstream.counters, self.upstream.dials
        realm = "auth" if dials.challenge_realm == "foreign" and dials.auth == "bearer" else "registry"
        assert counters.authorizations("cdn") == []
        for secret in filter(None, (self.profile.password, _wrong(self.profile))):
            assert counters.witnesses(secret) <= ({realm} if self.caller != "anonymous" else set())


def _name(profile: Profile, caller: Caller) -> str:
    return f"{caller}.p{PROFILES.index(profile)}.example"


def _wrong(profile: Profile) -> str:
    return f"not {profile.password}" if profile.has_login else ""


def _table(profile: Profile, caller: Caller, url: str) -> dict[str, object]:
    if caller == "anonymous":
        return {"url": url}
    password = profile.password if caller == "login" else _wrong(profile)
    return {"url": url, "username": profile.username, "password": password, "private": "anyone"}


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    callers: tuple[Caller, ...] = ("anonymous", "login", "wrong")
    with ExitStack() as stack:
        upstreams = {profile.name: stack.enter_context(Upstream()) for profile in PROFILES}
        tables = {
            _name(profile, caller): _table(profile, caller, upstreams[profile.name].url)
            for profile in PROFILES
            for caller in (callers if profile.has_login else callers[:1])
        }
        store = tmp_path_factory.mktemp("profiles") / "store"
        settings = {**NO_PREFETCH, "LAYOVER_FRESHNESS__RULES": json.dumps([{"match": f"*:{MOVING}", "ttl": "0s"}])}
        replica = stack.enter_context(Replica(store, upstreams=tables, settings=settings))
        yield Bed(upstreams, Door(replica.port))
        assert_discreet(replica, *(profile.password for profile in PROFILES if profile.has_login))


class Case(NamedTuple):
    """A registry, a caller, and whether the repository is closed to anonymous callers."""

    profile: Profile
    caller: Caller
    is_closed: bool = False

    def __str__(self) -> str:
        words = (*self.profile.name.split(), self.caller, *(("closed",) if self.is_closed else ()))
        return "-".join(words)


ANONYMOUS = [Case(profile, "anonymous") for profile in PROFILES if profile.has_public]
PRIVATE = [Case(profile, "login", is_closed=True) for profile in PROFILES if profile.has_login]
LOGGED_IN = [Case(profile, "login") for profile in PROFILES if profile.has_login and profile.has_public]
MISTAKEN = [Case(profile, "wrong") for profile in PROFILES if profile.has_login]
CLOSED = [Case(profile, "anonymous") for profile in PROFILES if not profile.has_public]


@pytest.fixture
def scene(request: pytest.FixtureRequest, bed: Bed) -> Iterator[Scene]:
    """Return the registry of a case, with nothing counted and one repository that no other test uses."""
    case: Case = request.param
    upstream = bed.upstreams[case.profile.name]
    case.profile.turn(upstream)
    upstream.counters.clear()
    repository = f"team/app{zlib.crc32(request.node.nodeid.encode())}"
    if case.is_closed:
        upstream.dials.private = {repository}
    scene = Scene(case.profile, upstream, bed.door, case.caller, repository)
    yield scene
    scene.assert_nothing_leaked()


def cases(*found: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("scene", [case for each in found for case in each], indirect=True, ids=str)


@cases(ANONYMOUS, PRIVATE, LOGGED_IN)
def test_pulls__and_again_without_a_request(scene: Scene) -> None:
    image = scene.push()
    scene.pull(image)
    scene.assert_nothing_leaked()
    for blob in image.blobs:
        assert scene.upstream.counters.overlaps(blob.digest) == 0
    scene.upstream.counters.clear()
    scene.pull(image)
    assert scene.upstream.counters.headers == []


@cases(ANONYMOUS, PRIVATE)
def test_answers_head(scene: Scene) -> None:
    image = scene.push()
    blob = image.layers[0]
    found = {
        f"manifests/{image.tag}": image.index,
        f"manifests/{image.manifests[0].digest}": image.manifests[0],
        f"blobs/{blob.digest}": blob,
    }
    for path, descriptor in found.items():
        answer = scene.ask(path, "HEAD")
        assert (answer.status, answer.body) == (200, b""), path
        assert answer.headers["Docker-Content-Digest"] == descriptor.digest
        assert answer.length == descriptor.size
        if path.startswith("manifests"):
            assert answer.headers["Content-Type"] == descriptor.media_type


@cases(ANONYMOUS, PRIVATE)
def test_says_what_is_missing(scene: Scene) -> None:
    image = scene.push()
    absent = Digest.of(scene.repository.encode())
    scene.fetch(f"manifests/{image.tag}", image.index.digest)
    assert_error(scene.ask("manifests/none"), 404, "MANIFEST_UNKNOWN", "NAME_UNKNOWN")
    assert_error(scene.ask(f"manifests/{absent}"), 404, "MANIFEST_UNKNOWN", "NAME_UNKNOWN")
    assert_error(scene.ask(f"blobs/{absent}"), 404, "BLOB_UNKNOWN", "NAME_UNKNOWN")
    assert scene.upstream.counters.tokens() <= 2


@cases(ANONYMOUS, PRIVATE)
@pytest.mark.parametrize("path", ["manifests/1", "tags/list"])
def test_says_that_a_repository_is_missing(path: str, scene: Scene) -> None:
    answer = scene.ask(path)
    assert answer.status in (403, 404)
    assert_error(answer, answer.status, "DENIED", "NAME_UNKNOWN", "MANIFEST_UNKNOWN")
    assert scene.upstream.counters.requests(kind="token") <= 4
    assert scene.upstream.counters.failed_logins == 0


@cases(ANONYMOUS, PRIVATE)
def test_lists_tags(scene: Scene) -> None:
    for tag in ("1", "2", "3"):
        scene.upstream.push_manifest(scene.repository, tag, b'{"schemaVersion": 2}', "text/plain")
    answer = scene.ask("tags/list?n=2")
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"].partition(";")[0] == "application/json"
    found = list(answer.document["tags"])
    while "Link" in answer.headers:
        target = answer.headers["Link"].partition("<")[2].partition(">")[0]
        answer = scene.door.get(target)
        assert answer.status == 200, target
        found += answer.document["tags"]
        assert len(found) <= 4
    assert [tag for tag in found if not tag.startswith("sha256:")] == ["1", "2", "3"]


@cases(ANONYMOUS, PRIVATE)
def test_finds_referrers__or_says_that_there_is_no_such_list(scene: Scene) -> None:
    image = scene.push()
    answer = scene.ask(f"referrers/{image.index.digest}")
    if scene.upstream.dials.referrers == "served":
        assert answer.status == 200, answer.body
        assert answer.document["manifests"] == []
    else:
        assert_error(answer, 404, "MANIFEST_UNKNOWN", "NAME_UNKNOWN")


@cases([case for case in ANONYMOUS + PRIVATE if case.profile.dials.get("auth") == "bearer"])
def test_goes_on__after_its_token_expired(scene: Scene) -> None:
    image = scene.push()
    scene.fetch(f"manifests/{image.tag}", image.index.digest)
    scene.upstream.expire_tokens()
    scene.pull(image)
    # One for each of two times, and as many where a listing or a HEAD needs its own.
    assert scene.upstream.counters.tokens() <= 4


@cases(ANONYMOUS, PRIVATE)
def test_follows_a_tag_that_moved(scene: Scene) -> None:
    first = scene.push(MOVING)
    scene.fetch(f"manifests/{MOVING}", first.index.digest)
    scene.upstream.counters.clear()
    for _ in range(3):
        scene.fetch(f"manifests/{MOVING}", first.index.digest)
    requests = scene.upstream.counters.requests
    if scene.profile.head_names_digest:
        assert requests("HEAD", "manifest") >= 3
        assert requests("GET", "manifest") <= len(scene.profile.dials.get("failures", ()))  # type: ignore[arg-type]
    second = scene.push(MOVING, "again")
    scene.fetch(f"manifests/{MOVING}", second.index.digest)


@cases(CLOSED)
def test_says_that_it_is_denied__to_nobody(scene: Scene) -> None:
    image = scene.push()
    for path in (f"manifests/{image.tag}", f"blobs/{image.layers[0].digest}", "tags/list"):
        assert_error(scene.ask(path), 403, "DENIED")


@cases(MISTAKEN)
def test_asks_as_nobody__with_a_wrong_password(scene: Scene) -> None:
    image = scene.push()
    if scene.profile.has_public:
        scene.pull(image)
    for _ in range(5):
        scene.upstream.dials.private.add(scene.repository + "/closed")
        scene.upstream.push_manifest(scene.repository + "/closed", "1", b'{"schemaVersion": 2}', "text/plain")
        answer = scene.ask("manifests/1", repository=scene.repository + "/closed")
        assert answer.status in (403, 404)
    assert scene.upstream.counters.failed_logins <= 5
