"""Upstreams that attack: whatever one does, it harms nothing but its own pull, and learns of no secret but its own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.benchmarks.processes import MemoryWatch, proportional_bytes
from tests.chaos import hostile_cases
from tests.chaos.hostile_answers import behind_token, head, manifest, pours, says
from tests.chaos.hostile_case import CUT_SECONDS, PROMPT, Case
from tests.chaos.hostile_cases import expected, target
from tests.chaos.hostile_client import PATIENCE, Told, ask
from tests.chaos.hostile_server import CERTIFICATE, Exchange, Peer, Script, Secrets, Servers, certified
from tests.chaos.reader import Client, Reader
from tests.chaos.scene import MIB, eventually
from tests.replica import NO_PREFETCH, Replica
from tests.upstream import Upstream

_CASES = hostile_cases.cases()
_MOST_MEMORY = 96 * MIB
_MOST_LINES = 3
_MOST_REQUESTS = 60
_WARM = "library/warm"


class Round(NamedTuple):
    """A pull of an image that nobody pulled before, and of one that is held, from a healthy upstream."""

    began: float
    ended: float


class Attack(NamedTuple):
    """What became of one case."""

    case: Case
    name: str
    peer: Peer
    told: Told


class Assault(NamedTuple):
    """What became of all cases, made at once, with a healthy upstream in use all along."""

    attacks: dict[str, Attack]
    rounds: Sequence[Round]
    error: str
    """What went wrong with the healthy upstream's pulls."""
    memory: int
    log: str
    thief: Peer

    @property
    def slack(self) -> float:
        """How late a good pull was at worst: so late may any answer be, on a busy machine."""
        return max(each.ended - each.began for each in self.rounds)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of the log that name an upstream."""
        found = [json.loads(line) for line in self.log.splitlines() if name in line]
        return [line for line in found if isinstance(line, dict)]


@pytest.fixture(scope="module")
def assault(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Assault]:
    """Make every case that a test was selected for."""
    chosen = {item.callspec.params["case"] for item in request.session.items if hasattr(item, "callspec")
              and "case" in item.callspec.params}  # fmt: skip
    picked = [case for case in _CASES if case in chosen] or _CASES
    folder = tmp_path_factory.mktemp("hostile")
    with Servers() as servers, Upstream() as healthy:
        thief = servers.add(hostile_cases.thief, Secrets("none", "no-password", "no-token"))
        peers = {
            f"h{number}.example": _listen(servers, case, number, thief, folder) for number, case in enumerate(picked)
        }
        tables = {name: _table(peer, folder) for name, peer in peers.items()}
        with Replica(folder / "store", upstreams={"docker.io": healthy.url, **tables}) as replica:
            yield _attack(replica, healthy, dict(zip(peers, picked, strict=True)), peers, thief)


def _listen(servers: Servers, case: Case, number: int, thief: Peer, folder: Path) -> Peer:
    secrets = Secrets(f"user-{number}", f"password-{number}-of-the-mirror", f"token-{number}-of-the-mirror")
    tls = certified(folder) if case.scheme == "https" else None
    return servers.add(case.script, secrets, thief.url, tls, pretends_tls=case.scheme == "plain")


def _table(peer: Peer, folder: Path) -> dict[str, object]:
    table: dict[str, object] = {"url": peer.url, "private": "anyone"}
    table |= {"username": peer.secrets.username, "password": peer.secrets.password}
    return (
        {**table, "ca_file": str(folder / CERTIFICATE)} if peer.url.startswith("https") and not peer.is_deaf else table
    )


def _attack(
    replica: Replica, healthy: Upstream, cases: dict[str, Case], peers: dict[str, Peer], thief: Peer
) -> Assault:
    pulls = _Healthy(replica, healthy)
    pulls.pull()
    memory = proportional_bytes(replica.pid)
    told: dict[str, Told] = {}
    with MemoryWatch(replica.pid) as watch, pulls, ThreadPoolExecutor(len(cases)) as pool:
        together = {name: case for name, case in cases.items() if not case.is_alone}
        told |= zip(together, pool.map(lambda name: _pull(replica, together[name], name), together), strict=True)
        for name, case in cases.items():
            if case.is_alone:
                told[name] = _pull(replica, case, name)
    attacks = {case.name: Attack(case, name, peers[name], told[name]) for name, case in cases.items()}
    _wait_for(lambda: all(f"/{name}/" in replica.log.read_text() for name in cases))
    return Assault(attacks, pulls.rounds, pulls.error, watch.peak - memory, replica.log.read_text(), thief)


def _wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until something is so, or for long enough."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)


class _Healthy:
    """Pulls from a healthy upstream, again and again while its context lasts."""

    def __init__(self, replica: Replica, upstream: Upstream) -> None:
        self.rounds: list[Round] = []
        self._replica = replica
        self._upstream = upstream
        self._warm = upstream.push_image(_WARM, "1", ["linux/amd64"], [10_000], raw=True)
        self.error = ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="healthy", daemon=True)

    def pull(self) -> None:
        """Pull an image cold, and one that is warm after the first time."""
        number = len(self.rounds)
        began = time.monotonic()
        cold = self._upstream.push_image(f"library/cold{number}", "1", ["linux/amd64"], [200_000], number, raw=True)
        for image in (cold, self._warm):
            Client(self._replica.url, image).wait(PATIENCE).assert_whole()
        self.rounds.append(Round(began, time.monotonic()))

    def _run(self) -> None:
        try:
            while not self._end.wait(0.05):
                self.pull()
        except AssertionError as error:
            self.error = str(error)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(2 * PATIENCE)


def _pull(replica: Replica, case: Case, name: str) -> Told:
    if case.ask == "layer":
        first = ask(replica.url, "GET", f"/v2/{name}/team/app/manifests/1", case.image.manifest_digest)
        if first.outcome != "200":
            return first._replace(outcome=f"{first.outcome} for the manifest")
    return ask(replica.url, "HEAD" if case.ask == "head" else "GET", target(case, name), expected(case))


@pytest.mark.parametrize("case", _CASES, ids=[case.name for case in _CASES])
class TestAttack:
    @pytest.fixture
    def attack(self, assault: Assault, case: Case) -> Attack:
        return assault.attacks[case.name]

    def test_is_told_to_its_own_client__right_and_in_time(self, assault: Assault, attack: Attack) -> None:
        told = attack.told
        assert told.outcome in attack.case.outcomes, told
        assert told.seconds < attack.case.seconds + assault.slack, told
        codes = {"503": {"UNAVAILABLE"}, "403": {"DENIED"}, "429": {"TOOMANYREQUESTS"}}
        if told.outcome in codes and attack.case.ask != "head":
            assert told.code in codes[told.outcome]
            assert len(told.message) < 500
        if told.outcome in {"503", "429"}:
            assert 0 < int(told.headers["Retry-After"]) <= 3600

    def test_is_asked_a_few_times_at_most(self, attack: Attack) -> None:
        assert len(attack.peer.heard) <= _MOST_REQUESTS

    def test_learns_no_secret_but_its_own(self, assault: Assault, attack: Attack) -> None:
        others = [each.peer for each in assault.attacks.values() if each is not attack]
        assert all(peer.is_quiet_about(attack.peer.secrets) for peer in (assault.thief, *others))
        assert not any(heard.header("Cookie") for heard in attack.peer.heard)

    def test_keeps_no_connection(self, attack: Attack) -> None:
        eventually(lambda: attack.peer.open == 0, "the mirror closes its connections", CUT_SECONDS)

    def test_is_logged__in_a_line_or_two(self, assault: Assault, attack: Attack) -> None:
        if attack.told.outcome in {"200", "other"}:
            return
        lines = assault.lines(attack.name)
        assert 1 <= len(lines) <= _MOST_LINES, lines
        said = [line for line in lines if any(line.get(key) for key in ("error", "cut", "why"))]
        assert said, lines
        assert len(json.dumps(lines)) < 4000
        log = assault.log.encode()
        assert not any(spelling in log for spelling in attack.peer.secrets.spellings)


class TestAssault:
    def test_harms_nobody_else(self, assault: Assault) -> None:
        assert assault.error == ""
        slow = [each.told for each in assault.attacks.values() if each.told.seconds > 5]
        for told in slow:
            assert any(told.began < each.began and each.ended < told.ended for each in assault.rounds), told

    def test_costs_little_memory(self, assault: Assault) -> None:
        assert assault.memory < _MOST_MEMORY

    def test_is_no_defect(self, assault: Assault) -> None:
        assert "Traceback" not in assault.log
        assert "defect" not in assault.log
        assert all(json.loads(line) for line in assault.log.splitlines())


def test_warm_tag__keeps_pulling_when_its_upstream_begins_to_attack(tmp_path: Path) -> None:
    turned = threading.Event()
    chosen = [case for case in _CASES if (case.ask, case.scheme) == ("manifest", "http")]
    honest = behind_token(says(manifest()))
    with Servers() as servers:
        thief = servers.add(hostile_cases.thief, Secrets("none", "no-password", "no-token"))
        cases = {f"h{number}.example": case for number, case in enumerate(chosen)}
        peers = {
            name: _listen(servers, case._replace(script=_turning(turned, honest, case.script)), number, thief, tmp_path)
            for number, (name, case) in enumerate(cases.items())
        }
        tables = {name: _table(peer, tmp_path) for name, peer in peers.items()}
        settings = {"LAYOVER_FRESHNESS__TAG_TTL": "0s"}
        replica = Replica(tmp_path / "store", upstreams=tables, settings=settings)
        with replica, ThreadPoolExecutor(len(cases)) as pool:
            assert {told.outcome for told in pool.map(lambda name: _pull(replica, cases[name], name), cases)} == {"200"}
            turned.set()
            found = list(pool.map(lambda name: _pull(replica, cases[name], name), cases))
        assert "Traceback" not in replica.log.read_text()
        assert "defect" not in replica.log.read_text()
        for (name, case), told in zip(cases.items(), found, strict=True):
            # A well-formed 404, or another manifest, is an upstream's word.
            assert told.outcome in {"200", *({"404", "other"} & set(case.outcomes))}, (case.name, told)
            assert told.seconds < PROMPT, (case.name, told)
            assert thief.is_quiet_about(peers[name].secrets)


def _turning(turned: threading.Event, before: Script, after: Script) -> Script:
    async def script(exchange: Exchange) -> None:
        await (after if turned.is_set() else before)(exchange)

    return script


def test_blob_without_an_end__takes_the_store_from_nobody(tmp_path: Path) -> None:
    """Nothing tells how large it will be, and its reader leaves before anybody knows that it never ends."""
    endless = pours(head(200), bytes(MIB))
    settings = {"LAYOVER_STORE__SIZE": "64MiB", "LAYOVER_STORE__MIN_FREE": "0B", **NO_PREFETCH}
    with Servers() as servers, Upstream() as healthy:
        peer = servers.add(endless, Secrets("none", "no-password", "no-token"))
        upstreams = {"docker.io": healthy.url, "hostile.example": peer.url}
        with Replica(tmp_path / "store", upstreams=upstreams, settings=settings) as replica:
            reader = Reader(replica.url, f"/v2/hostile.example/team/app/blobs/sha256:{'0' * 64}").wait_for(MIB)
            reader.kill()
            eventually(lambda: peer.open == 0, "the mirror closes its connection", CUT_SECONDS)
            image = healthy.push_image("library/app", "1", ["linux/amd64"], [MIB], raw=True)
            client = Client(replica.url, image).wait()
            client.assert_whole()
            assert client.readers[-1].headers["Cache-Status"] == "layover; fwd=miss; stored"
