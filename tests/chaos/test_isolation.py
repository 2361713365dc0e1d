"""One bad upstream is that upstream's matter: what cannot be had is told soon and rightly, and nobody else waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.chaos.hostile_answers import Image, behind_token, full, holds, says, with_manifest
from tests.chaos.hostile_client import Lateness, Told, ask
from tests.chaos.hostile_internet import COMMAND, Internet
from tests.chaos.hostile_server import Peer, Script, Secrets, Servers, certified
from tests.chaos.reader import Client, Reader
from tests.chaos.scene import eventually
from tests.replica import Replica, free_port
from tests.upstream import Upstream

_SECONDS = 10.0
_CROWD = 50
_PAUSE = 0.1
_IMAGES = 5
_GOOD, _GOOD_ADDRESS = "good.example", "93.184.216.34"
_HOLE, _HOLE_ADDRESS = "hole.example", "93.184.216.35"
_REFUSING, _REFUSING_ADDRESS = "refusing.example", "93.184.216.36"
_SECRETS = Secrets("someone", "password-of-the-mirror", "token-of-the-mirror")
_DIGEST = f"sha256:{'0' * 64}"

BAD: Mapping[str, Callable[[int], str]] = {
    "accepts and never answers": lambda _: _HOLE,
    "refuses": lambda _: _REFUSING,
    "has a name that does not exist": lambda _: "nowhere.example",
    "has a name that hangs": lambda _: "hang.example",
    "has many names that hang": lambda number: f"r{number}.hang.example",
}


class Crowd:
    """Pulls of what nobody pulled before from a bad upstream, always 50 at once from its beginning to its end."""

    def __init__(self, replica: Replica, name: Callable[[int], str], repository: str, end: threading.Event) -> None:
        """Pull from the upstream that `name` gives each client, until `end`."""
        self.told: list[Told] = []
        self._replica = replica
        self._name = name
        self._repository = repository
        self._end = end
        self._threads = [
            threading.Thread(target=self._pull, args=(number,), name="crowd", daemon=True) for number in range(_CROWD)
        ]

    def _pull(self, number: int) -> None:
        turn = 0
        while not self._end.is_set():
            turn += 1
            ending = f"manifests/{turn}" if number % 2 else f"blobs/{_DIGEST}"
            target = f"/v2/{self._name(number)}/{self._repository}/app{number}/{ending}"
            self.told.append(ask(self._replica.url, "GET", target))
            self._end.wait(_PAUSE)

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(5 * _SECONDS)


@pytest.fixture
def good() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def replica(good: Upstream, tmp_path: Path) -> Iterator[Replica]:
    """Return a replica on an internet with good and bad upstreams; all of them have names, as real ones do."""
    with Servers() as servers:
        hole = servers.add(holds(), _SECRETS)
        names = {_GOOD: [[_GOOD_ADDRESS]], _HOLE: [[_HOLE_ADDRESS]], _REFUSING: [[_REFUSING_ADDRESS]]}
        routes = {
            f"{_GOOD_ADDRESS}:80": int(good.url.rpartition(":")[2]),
            f"{_HOLE_ADDRESS}:80": hole.port,
            f"{_REFUSING_ADDRESS}:80": free_port(),
        }
        internet = Internet(str(tmp_path / "dialled"), names, ("hang.example",), routes, free_port())
        tables: dict[str, str | Mapping[str, object]] = {"docker.io": f"http://{_GOOD}", "*.hang.example": {}}
        tables |= {name: f"http://{name}" for name in (_HOLE, _REFUSING, "nowhere.example", "hang.example")}
        with Replica(tmp_path / "store", upstreams=tables, settings=internet.environment, command=COMMAND) as running:
            yield running


def test_pull__while_50_clients_pull_from_each_upstream_that_is_bad(good: Upstream, replica: Replica) -> None:
    warm = good.push_image("team/warm", "1", ["linux/amd64"], [100_000], raw=True)
    end = threading.Event()
    crowds = [Crowd(replica, name, f"team{number}", end) for number, name in enumerate(BAD.values())]
    slack = 0.0
    with ExitStack() as stack:
        for crowd in crowds:
            stack.enter_context(crowd)
        for seed in range(_IMAGES):
            cold = good.push_image(f"team/cold{seed}", "1", ["linux/amd64"], [100_000], seed, raw=True)
            for wanted in (warm, cold):
                began = time.monotonic()
                Client(replica.url, wanted).wait().assert_whole()
                slack = max(slack, time.monotonic() - began)
    assert slack < _SECONDS / 2
    for crowd in crowds:
        assert len(crowd.told) >= _CROWD
        for told in crowd.told:
            assert (told.outcome, told.code) == ("503", "UNAVAILABLE"), told
            assert told.seconds < _SECONDS + slack, told
            assert ".example" in told.message


def test_pull__of_a_blob_that_bad_upstreams_are_asked_for_too(tmp_path: Path) -> None:
    """Nobody may hold back a blob from others by pretending to send it."""
    image = Image("shared")
    half = full(image.layer)[: -len(image.layer) // 2]
    scripts = {
        "silent.example": holds(),
        "slow.example": holds(half),
        "wrong.example": says(full(bytes(len(image.layer)))),
        "good.example": says(full(image.layer)),
    }
    with Servers() as servers:
        peers = {name: servers.add(with_manifest(image, script), _SECRETS) for name, script in scripts.items()}
        login = {"private": "anyone", "username": _SECRETS.username, "password": _SECRETS.password}
        tables = {name: {"url": peer.url, **login} for name, peer in peers.items()}
        with Replica(tmp_path / "store", upstreams=tables) as replica:
            for name in peers:
                first = ask(replica.url, "GET", f"/v2/{name}/team/app/manifests/1", image.manifest_digest)
                assert first.outcome == "200", first
            blob = f"team/app/blobs/{image.digest}"
            bad = [Reader(replica.url, f"/v2/{name}/{blob}") for name in peers if name != "good.example"]
            silent = peers["silent.example"]
            eventually(lambda: any("/blobs/" in heard.target for heard in silent.heard), "the bad ones were asked")
            told = ask(replica.url, "GET", f"/v2/good.example/{blob}", image.digest)
            assert told.outcome == "200", told
            assert told.seconds < _SECONDS
            for reader in bad:
                reader.kill()
                # What is held by now may be given to whoever asked another upstream for it; nothing wrong may.
                assert reader.received < len(image.layer) or reader.digest == image.digest


class State(NamedTuple):
    """A way to fail: what the upstream does, and what its clients are told."""

    script: Script | None
    status: str = "503"
    code: str = "UNAVAILABLE"
    url: str = ""
    has_tls: bool = False


_LIMITED = full(b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}', 429, {"Retry-After": "7"})
_REJECTS = behind_token(says(full(b"{}", 401)), give=says(full(b'{"details":"incorrect username or password"}', 401)))
STATES = {
    "refuses": State(None),
    "429": State(says(_LIMITED), "429", "TOOMANYREQUESTS"),
    "503": State(says(full(b"", 503))),
    "TLS": State(holds(), has_tls=True),
    "DNS": State(None, url="http://nowhere.invalid"),
    "credentials": State(_REJECTS, "403", "DENIED"),
    "black hole": State(holds()),
}
ASKS = {
    "manifest": ("GET", "manifests/1"),
    "manifest's head": ("HEAD", "manifests/1"),
    "digest": ("GET", f"manifests/{_DIGEST}"),
    "blob": ("GET", f"blobs/{_DIGEST}"),
    "blob's head": ("HEAD", f"blobs/{_DIGEST}"),
    "tags": ("GET", "tags/list"),
    "referrers": ("GET", f"referrers/{_DIGEST}"),
}


class Failing(NamedTuple):
    """What every kind of request was told in every state: the first time, and again at once. `late`: in seconds."""

    told: Mapping[tuple[str, str], tuple[Told, Told]]
    late: float
    log: str


def _name(state: str, asked: str) -> str:
    return f"s{list(STATES).index(state)}-{list(ASKS).index(asked)}.example"


def _table(peer: Peer | None, state: State) -> dict[str, object]:
    url = state.url or (f"http://127.0.0.1:{free_port()}" if peer is None else peer.url)
    return {"url": url, "username": _SECRETS.username, "password": _SECRETS.password}


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failing]:
    folder = tmp_path_factory.mktemp("failing")
    cells = [(state, asked) for state in STATES for asked in ASKS]
    with Servers() as servers:
        peers = {
            state: servers.add(each.script, _SECRETS, tls=certified(folder) if each.has_tls else None)
            for state, each in STATES.items()
            if each.script is not None
        }
        tables = {_name(*cell): _table(peers.get(cell[0]), STATES[cell[0]]) for cell in cells}

        def pull(cell: tuple[str, str]) -> tuple[Told, Told]:
            method, ending = ASKS[cell[1]]
            target = f"/v2/{_name(*cell)}/team/app/{ending}"
            return ask(running.url, method, target), ask(running.url, method, target)

        with Replica(folder / "store", upstreams=tables) as running:
            with Lateness(running.url) as late, ThreadPoolExecutor(len(cells)) as pool:
                told = dict(zip(cells, pool.map(pull, cells), strict=True))
            yield Failing(told, late.seconds, running.log.read_text())


@pytest.mark.parametrize("asked", ASKS)
@pytest.mark.parametrize("state", STATES)
def test_tells_how_it_failed__in_time(failing: Failing, state: str, asked: str) -> None:
    expected = STATES[state]
    for told in failing.told[state, asked]:
        assert told.outcome == expected.status, told
        assert told.seconds < _SECONDS + failing.late, told
        if ASKS[asked][0] == "GET":
            assert told.code == expected.code, told
            assert _name(state, asked) in told.message
        if expected.status == "503":
            assert int(told.headers["Retry-After"]) >= 1
        if expected.status == "429":
            assert 1 <= int(told.headers["Retry-After"]) <= 7
        assert "WWW-Authenticate" not in told.headers


def test_tells_no_secret(failing: Failing) -> None:
    assert "Traceback" not in failing.log
    assert "defect" not in failing.log
    assert not any(spelling in failing.log.encode() for spelling in _SECRETS.spellings)
