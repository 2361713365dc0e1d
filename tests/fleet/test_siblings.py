"""Requests of siblings to real replicas with one door and with two, while Redis answers, is killed, and hangs."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from mirror.fleet.signature import PROOF, SIGNATURE, Question, Signature, is_proven
from mirror.oci.digest import Digest
from tests.chaos.reader import Reader, get
from tests.fleet.replicas import SECRET, Member, Replicas
from tests.fleet.servers import Valkey, until
from tests.fleet.terminator import Terminator
from tests.replica import Replica
from tests.upstream import Upstream
from tests.workers.family import open_files

_MIB = 2**20
_SIZE = 2 * _MIB
_OFF = 3600.0
_REPOSITORY = "library/siblings"
_numbers = itertools.count(1)


class Answer(NamedTuple):
    """What was answered; `is_proven` if by whom was asked."""

    status: int
    body: bytes
    is_proven: bool


class Scene:
    """Two replicas, the clock of `b` an hour off, their Redis, their registry, and the file of their secret."""

    def __init__(self, upstream: Upstream, valkey: Valkey, replicas: Replicas, secret: Path) -> None:
        self.upstream = upstream
        self.valkey = valkey
        self.replicas = replicas
        self.secret = secret
        self.a, self.b = replicas

    def push(self) -> Digest:
        """Push a blob that nobody has."""
        digest = Digest(self.upstream.push_random_blob(_REPOSITORY, _SIZE, next(_numbers)))
        self.upstream.counters.clear()
        return digest

    def held(self) -> Digest:
        """Return the digest of a blob that `b` has."""
        digest = self.push()
        assert get(self.b.url, f"/v2/{_REPOSITORY}/blobs/{digest}").digest == digest
        until(lambda: self.b in self.replicas.holding(digest), "it is held")
        self.upstream.counters.clear()
        return digest

    def sign(self, target: str, *, late: float = 0.0, to: Member | None = None) -> Signature:
        """Return a signature as a sibling makes it, `late` by so many seconds; Redis has the time of this machine."""
        receiver = json.loads(((to or self.b).store / "identity").read_bytes())["identity"]
        unsigned = Signature("a-sibling", receiver, int((time.time() + late) * 1000))
        return unsigned.signed(Question("GET", target, ""), self.secret.read_text())

    def ask(self, signature: Signature, target: str) -> Answer:
        """Ask `b` in the name of a sibling."""
        connection = http.client.HTTPConnection("127.0.0.1", self.b.port, timeout=30)
        try:
            connection.request("GET", target, headers={SIGNATURE: signature.header()})
            response = connection.getresponse()
            proof = response.headers.get(PROOF, "")
            known = is_proven(proof, signature, self.secret.read_text(), None)
            return Answer(response.status, response.read(), known)
        finally:
            connection.close()

    def knows(self, signature: Signature) -> bool:
        """Say whether `b` takes a signature of `/v2/` for a sibling's."""
        return self.ask(signature, "/v2/").is_proven

    def refused(self) -> Mapping[str, float]:
        """Return how many requests `b` has refused, by reason."""
        reasons = ("alone", "malformed", "forged", "redirected", "expired")
        return {reason: self.b.metric("layover_sibling_refused_total", reason=reason) for reason in reasons}


class Held(Reader):
    """A client that reads while something else is looked at, and is gone after that."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait()


def target(digest: str) -> str:
    """Return the path of a blob as siblings ask for it."""
    return f"/v2/docker.io/{_REPOSITORY}/blobs/{digest}"


@pytest.fixture(scope="module", params=["1", "2"], ids=["one door", "two doors"])
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("fleet")
    secret = folder / "secret"
    secret.write_text(SECRET)
    settings = {
        "LAYOVER_SERVER__WORKERS": request.param,
        "LAYOVER_FLEET__SECRET": "",
        "LAYOVER_FLEET__SECRET_FILE": str(secret),
    }
    with Upstream() as upstream, Valkey(folder / "valkey") as valkey:
        replicas = Replicas(folder, ("west", "east"), valkey.url, {"docker.io": upstream.url}, settings=settings)
        try:
            replicas.prepare()[1].shift_clock(_OFF)
            replicas.start()
            yield Scene(upstream, valkey, replicas, secret)
        finally:
            replicas.stop()


@pytest.fixture
def scene(fleet: Scene) -> Iterator[Scene]:
    yield fleet
    fleet.upstream.reset()
    fleet.secret.write_text(SECRET)
    fleet.valkey.kill()
    fleet.valkey.start()
    fleet.replicas.start()
    # Each connection may be another door's.
    until(lambda: all(fleet.knows(fleet.sign("/v2/")) for _ in range(8)), "all doors have the old secret again")


def _assert_told_apart(scene: Scene, digest: Digest) -> None:
    """Check that a genuine request is answered, and that each other one is refused, counted, and starts nothing."""
    before, clients = scene.refused(), scene.b.metric("layover_requests_total")
    there, elsewhere = target(digest), target(scene.push())
    genuine = scene.ask(scene.sign(there), there)
    assert (genuine.status, Digest.of(genuine.body), genuine.is_proven) == (200, digest, True)
    genuine = scene.ask(scene.sign(elsewhere), elsewhere)
    assert (genuine.status, genuine.is_proven) == (404, True)
    wrong = {
        "forged": [scene.sign(there)._replace(mac="0" * 64), scene.sign(elsewhere), scene.sign(there)._replace(at=1)],
        "expired": [scene.sign(there, late=-40), scene.sign(there, late=40), scene.sign(there, late=_OFF)],
        "redirected": [scene.sign(there, to=scene.a)],
        "malformed": [scene.sign(there)._replace(sender="no identity")],
    }
    for signatures in wrong.values():
        for signature in signatures:
            answer = scene.ask(signature, there)
            assert (answer.status, answer.is_proven) == (403, False)
            assert json.loads(answer.body)["errors"][0]["code"] == "DENIED"
    expected = {reason: before[reason] + len(wrong.get(reason, ())) for reason in before}
    until(lambda: scene.refused() == expected, f"counted: {expected}")
    assert scene.b.metric("layover_requests_total") == clients
    assert scene.b.metric("layover_fills_active") == 0
    assert scene.upstream.counters.requests() == 0


def test_verify__while_redis_answers(scene: Scene) -> None:
    _assert_told_apart(scene, scene.held())


def test_verify__while_redis_is_killed(scene: Scene) -> None:
    digest = scene.held()
    scene.valkey.kill()
    until(lambda: scene.b.metric("layover_fleet_up") == 0, "its loss is noticed")
    _assert_told_apart(scene, digest)


def test_verify__while_redis_hangs(scene: Scene) -> None:
    digest = scene.held()
    scene.valkey.pause()
    until(lambda: scene.b.metric("layover_fleet_up") == 0, "its loss is noticed")
    _assert_told_apart(scene, digest)


def test_verify__a_door_that_starts_while_redis_is_away(scene: Scene) -> None:
    """It has never heard from Redis, nor has its hub since."""
    digest = scene.held()
    scene.valkey.kill()
    until(lambda: scene.b.metric("layover_fleet_up") == 0, "its loss is noticed")
    doors = _doors(scene.b)
    if not doors:
        pytest.skip("with one door it is the hub's process")
    for door in doors:
        os.kill(door, signal.SIGKILL)
    until(lambda: _answers(scene, digest), "another door answers siblings")
    until(lambda: len(_doors(scene.b)) == len(doors) and not doors & _doors(scene.b), "all are others")
    for _ in range(10):
        assert _answers(scene, digest)


def test_verify__the_secret_is_replaced(scene: Scene) -> None:
    old = scene.sign("/v2/")
    assert scene.knows(old)
    scene.secret.write_text("another secret")
    until(lambda: all(scene.knows(scene.sign("/v2/")) for _ in range(8)), "the new one opens")
    assert {scene.ask(old, "/v2/").status for _ in range(8)} == {403}


def test_read__a_growing_file__as_it_grows_and_until_its_replica_is_killed(scene: Scene) -> None:
    scene.upstream.dials.blob_stall = _MIB
    digest = scene.push()
    with Held(scene.b.url, f"/v2/{_REPOSITORY}/blobs/{digest}") as client:
        client.wait_for(_MIB)
        there = target(digest)
        sibling = Reader(scene.b.url, there, {SIGNATURE: scene.sign(there).header()}).wait_for(_MIB)
        assert sibling.headers["Content-Length"] == str(_SIZE)
        assert sibling.headers["Layover-Chain"] == ""
        assert not sibling.has_ended
        scene.b.kill()
        assert not sibling.wait().is_complete
        assert sibling.received == _MIB
    assert scene.upstream.counters.requests(kind="blob", method="GET") <= 2


def test_join__at_the_url_of_another__alone_and_said_so(scene: Scene, tmp_path: Path) -> None:
    wrong = Member(
        tmp_path / "wrong",
        {"docker.io": scene.upstream.url},
        "west",
        scene.replicas.line,
        {
            "LAYOVER_FLEET__REDIS_URL": scene.valkey.url,
            "LAYOVER_FLEET__SECRET": scene.secret.read_text(),
            "LAYOVER_FLEET__ADVERTISE_URL": scene.b.url,
        },
    )
    before = scene.refused()["redirected"]
    with wrong:
        until(lambda: "set fleet.advertise_url" in wrong.log.read_text(), "it says what is wrong")
        assert wrong.metric("layover_fleet_up") == 0
        digest = scene.push()
        assert get(wrong.url, f"/v2/{_REPOSITORY}/blobs/{digest}").digest == digest
    assert scene.refused()["redirected"] > before


def test_refuse__a_replica_without_a_fleet(tmp_path: Path) -> None:
    with Upstream() as upstream, Replica(tmp_path / "alone", upstreams={"docker.io": upstream.url}) as alone:
        digest = upstream.push_random_blob(_REPOSITORY, _SIZE, 1)
        assert get(alone.url, f"/v2/{_REPOSITORY}/blobs/{digest}").digest == digest
        upstream.counters.clear()
        identity = json.loads((alone.store / "identity").read_bytes())["identity"]
        for secret in (SECRET, ""):
            question = Question("GET", target(digest), "")
            signature = Signature("a-sibling", identity, int(time.time() * 1000)).signed(question, secret)
            assert get(alone.url, question.target, {SIGNATURE: signature.header()}).status == 403
        assert alone.metric("layover_sibling_refused_total", reason="alone") == 2
        assert upstream.counters.requests() == 0


@pytest.mark.parametrize("is_trusted", [True, False], ids=["trusted", "not trusted"])
def test_pull__behind_tls__from_the_sibling_if_its_certificate_is_trusted(
    valkey: Valkey, tmp_path: Path, is_trusted: bool
) -> None:
    with Upstream() as upstream:
        replicas = Replicas(tmp_path, ("west", "west"), valkey.url, {"docker.io": upstream.url}).prepare()
        with Terminator(tmp_path, replicas[1].port) as terminator:
            replicas[1]._environment["LAYOVER_FLEET__ADVERTISE_URL"] = terminator.url
            if is_trusted:
                replicas[0]._environment["SSL_CERT_FILE"] = str(terminator.certificate)
            try:
                for each in (replicas[0], replicas[1]):
                    each.start()
                if is_trusted:
                    replicas.wait()
                else:
                    text = "set fleet.advertise_url"
                    until(lambda: text in replicas[1].log.read_text(), "it says that nobody reaches it")
                digest = upstream.push_random_blob(_REPOSITORY, _SIZE, 1)
                for each in (replicas[1], replicas[0]):
                    assert get(each.url, f"/v2/{_REPOSITORY}/blobs/{digest}").digest == digest
                brought = _SIZE if is_trusted else 0
                assert replicas[0].metric("layover_sibling_bytes_total", peer_region="west") == brought
                assert upstream.counters.sent(digest) == 2 * _SIZE - brought
            finally:
                replicas.stop()


def _answers(scene: Scene, digest: Digest) -> bool:
    try:
        return scene.ask(scene.sign(target(digest)), target(digest)).status == 200
    except (OSError, http.client.HTTPException):
        return False


def _doors(member: Member) -> set[int]:
    """Return the process ids of a replica's doors, where they have their own: all children that listen."""
    children = Path(f"/proc/{member.pid}/task/{member.pid}/children").read_text().split()
    return {int(pid) for pid in children if _listens(int(pid), member.port)}


def _listens(pid: int, port: int) -> bool:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"}
    return not inodes.isdisjoint(open_files(pid))
