"""A public upstream leads nowhere private, however the address is spelled: not by a redirect, not by a realm."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.chaos.hostile_answers import PLAIN, behind_token, challenge, full, manifest, says
from tests.chaos.hostile_internet import COMMAND, Internet
from tests.chaos.hostile_server import Exchange, Peer, Secrets, Servers
from tests.chaos.reader import Reader, get
from tests.replica import Replica

_SECRETS = Secrets("someone", "password-of-the-mirror", "token-of-the-mirror")
_PUBLIC, _CDN = "93.184.216.34", "93.184.216.35"
_METADATA = "169.254.169.254"
_SECONDS = 10.0

ADDRESSES = (
    _METADATA,
    "169.254.169.254.",
    "0xA9FEA9FE",
    "2852039166",
    "025177524776",
    "0251.0376.0251.0376",
    "0xa9.0xfe.0xa9.0xfe",
    "169.254.43518",
    "169.16689662",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[::a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::1]",
    "[fd00:ec2::254]",
    "[fe80::1%25eth0]",
    "[fec0::1]",
    "[::1]",
    "[::]",
    "127.0.0.1",
    "127.1",
    "0177.0.0.1",
    "0x7f000001",
    "0",
    "0.0.0.0",  # noqa: S104 - led to, not listened on
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "%31%36%39.254.169.254",
    "\uff11\uff16\uff19.\uff12\uff15\uff14.\uff11\uff16\uff19.\uff12\uff15\uff14",
    "169\u3002254\u3002169\u3002254",
    "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",
)
"""An address each, in the ways in which systems and libraries take them."""
NAMES: Mapping[str, list[list[str]]] = {
    "localhost": [["127.0.0.1"]],
    "LOCALHOST.": [["127.0.0.1"]],
    "metadata.google.internal": [[_METADATA]],
    "inner.example": [["10.0.0.1", "192.168.1.1"]],
    "inner6.example": [["::1", "fe80::1"]],
    "rebound.example": [[_CDN], [_METADATA], ["127.0.0.1"]],
    "turning.example": [[_METADATA], [_CDN]],
}
"""Names, and what they resolve to: the first time, the next time, and so on in turn."""
HOSTS = (*ADDRESSES, *NAMES)


class Way(NamedTuple):
    """How an upstream leads somewhere: `ask` below the repository gets `answer` about a URL there."""

    ask: str
    answer: str


WAYS = {
    "manifest": Way("manifests/1", "redirect"),
    "blob": Way(f"blobs/{PLAIN.digest}", "redirect"),
    "realm": Way("manifests/1", "realm"),
}


OWN_NAMES: Mapping[str, list[list[str]]] = {
    "mixed.example": [[_PUBLIC, "127.0.0.1", "10.0.0.1"]],
    "moving.example": [[_PUBLIC], ["127.0.0.1"], [_METADATA]],
}
"""Upstreams whose own names have private addresses as well, or later on."""
_LED = {f"u{number}-{way}.example": number for number in range(len(HOSTS)) for way in ("redirect", "realm")}


class Answer(NamedTuple):
    """What one client was told, and how long it took."""

    reader: Reader
    seconds: float


class Place(NamedTuple):
    """A public upstream for each host that it leads to, a replica, and all that is not public."""

    replica: Replica
    internet: Internet
    public: Peer
    inside: Peer

    def get(self, host: str, way: str) -> Answer:
        """Ask the upstream that leads to a host."""
        began = time.monotonic()
        target = f"/v2/u{HOSTS.index(host)}-{WAYS[way].answer}.example/team/app/{WAYS[way].ask}"
        return Answer(get(self.replica.url, target), time.monotonic() - began)

    def get_all(self, hosts: Sequence[str]) -> dict[tuple[str, str], Answer]:
        """Ask every upstream that leads to one of these hosts, in every way, some at a time."""
        asked = [(host, way) for host in hosts for way in WAYS]
        with ThreadPoolExecutor(16) as pool:
            return dict(zip(asked, pool.map(lambda each: self.get(*each), asked), strict=True))

    def assert_nothing_private(self, *dialled: str) -> None:
        """Check that nothing was dialled but some addresses, and that all is well otherwise."""
        assert set(self.internet.dialled) <= set(dialled)
        assert self.inside.heard == []
        log = self.replica.log.read_text()
        assert "Traceback" not in log
        assert "defect" not in log
        assert not any(spelling in log.encode() for spelling in _SECRETS.spellings)


async def _lead(exchange: Exchange) -> None:
    """Send whoever comes to the host that belongs to the name by which he came."""
    name = exchange.heard.header("Host")
    if name not in {*_LED, *OWN_NAMES}:
        await exchange.answer(full(b"", 503))
        return
    host = HOSTS[_LED.get(name, 0)].encode().decode("latin-1")
    if "realm" in name:
        await exchange.answer(challenge(f"http://{host}/token"))
        return
    location = full(b"", 307, {"Location": f"http://{host}/latest/meta-data/"})
    await behind_token(says(location), ask=says(challenge(f"http://{name}/token")))(exchange)


def _replica(folder: Path, internet: Internet, settings: Mapping[str, str]) -> Replica:
    login = {"private": "anyone", "username": _SECRETS.username, "password": _SECRETS.password}
    upstreams = {name: {"url": f"http://{name}", **login} for name in (*_LED, *OWN_NAMES)}
    environment = {**internet.environment, **settings}
    return Replica(folder / "store", upstreams=upstreams, settings=environment, command=COMMAND)


@contextmanager
def _placed(folder: Path, settings: Callable[[Peer], Mapping[str, str]] = lambda _: {}) -> Iterator[Place]:
    with Servers() as servers:
        public = servers.add(_lead, _SECRETS)
        inside = servers.add(says(manifest()), Secrets("none", "no-password", "no-token"))
        names = {name.lower().rstrip("."): turns for name, turns in ({**NAMES, **OWN_NAMES}).items()}
        names |= {name: [[_PUBLIC]] for name in _LED}
        routes = {f"{_PUBLIC}:80": public.port, f"{_CDN}:80": public.port}
        internet = Internet(str(folder / "dialled"), names, (), routes, inside.port)
        with _replica(folder, internet, settings(public)) as replica:
            yield Place(replica, internet, public, inside)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with _placed(tmp_path_factory.mktemp("addresses")) as found:
        yield found


@pytest.fixture(scope="module")
def answers(place: Place) -> dict[tuple[str, str], Answer]:
    """Ask for everything."""
    return place.get_all(HOSTS)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", HOSTS)
def test_is_refused(answers: dict[tuple[str, str], Answer], host: str, way: str) -> None:
    reader, seconds = answers[host, way]
    assert reader.status in ({403, 503} if way == "realm" else {503}), reader.beginning
    error = json.loads(reader.beginning)["errors"][0]
    assert error["code"] in {"UNAVAILABLE", "DENIED"}
    assert ".example" in error["message"]
    assert seconds < _SECONDS


def test_is_never_dialled(answers: dict[tuple[str, str], Answer], place: Place) -> None:
    place.assert_nothing_private(f"{_PUBLIC}:80", f"{_CDN}:80")
    assert any(_SECRETS.basic in heard.header("Authorization") for heard in place.public.heard)


@pytest.mark.parametrize("name", OWN_NAMES)
def test_is_never_dialled__by_an_upstream_that_has_private_addresses_too(place: Place, name: str) -> None:
    for number in range(4):
        reader = get(place.replica.url, f"/v2/{name}/team/app{number}/manifests/1")
        assert reader.status == 503, reader.beginning
    place.assert_nothing_private(f"{_PUBLIC}:80", f"{_CDN}:80")


def test_is_not_asked_of_a_proxy(tmp_path: Path) -> None:
    hosts = [host for host in HOSTS if host in ADDRESSES or host.lower().startswith("localhost")]
    with _placed(tmp_path, lambda proxy: {"HTTP_PROXY": proxy.url, "http_proxy": proxy.url}) as place:
        answers = place.get_all(hosts)
        for (host, way), (reader, _) in answers.items():
            assert reader.status in ({403, 503} if way == "realm" else {503}), (host, way, reader.beginning)
        asked = {urlsplit(heard.target).hostname for heard in place.public.heard}
        assert asked <= set(_LED)
        assert len(asked) > len(hosts)
        place.assert_nothing_private(f"127.0.0.1:{place.public.port}")
