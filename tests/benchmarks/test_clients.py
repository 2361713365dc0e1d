"""Clients see what they get: right, wrong, cut short or not there, and when it came."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.benchmarks.clients import pull
from tests.benchmarks.content import MIB
from tests.benchmarks.origin import Faults, Origin
from tests.benchmarks.prober import probe
from tests.benchmarks.readers import Downloads, read

_SIZE = 3 * MIB


@pytest.fixture(scope="module")
def running() -> Iterator[Origin]:
    with Origin({"small": [_SIZE, MIB]}) as origin:
        yield origin


@pytest.fixture
def origin(running: Origin) -> Iterator[Origin]:
    yield running
    running.fail()


def test_gets_every_blob_once__clients_a_while_apart(origin: Origin) -> None:
    before = origin.cost().sent
    crowd = pull(origin.url, "small", 3, 0.2)
    assert not crowd.failed
    assert [pulled.right for pulled in crowd.pulls] == [3, 3, 3]
    assert origin.cost().sent - before == 3 * origin.images["small"].size
    assert crowd.seconds >= 0.4
    assert all(pulled.began < pulled.first_blob_byte <= pulled.ended for pulled in crowd.pulls)


def test_tells_wrong_bytes__corrupt_blobs(origin: Origin) -> None:
    origin.fail(Faults(corrupt=True))
    crowd = pull(origin.url, "small")
    assert (crowd.pulls[0].right, crowd.pulls[0].wrong, crowd.failed) == (0, 3, ["a blob was wrong"])
    assert read(origin.url + origin.layer_path("small"), 2).whole == 1  # the one that does not look


def test_fails__blob_cut_short(origin: Origin) -> None:
    origin.fail(Faults(cut=MIB))
    crowd = pull(origin.url, "small")
    assert crowd.pulls[0].right == 2
    assert crowd.failed == [f"ConnectionError: closed with {_SIZE - MIB} bytes missing"]


def test_fails__image_not_there(origin: Origin) -> None:
    assert "404" in pull(origin.url, "other").failed[0]


def test_gives_up__upstream_hangs(origin: Origin) -> None:
    origin.fail(Faults(hang=True))
    assert "TimeoutError" in pull(origin.url, "small", patience=0.3).failed[0]


def test_measures_the_pause__stall(origin: Origin) -> None:
    origin.fail(Faults(stalls=[_SIZE // 2], stall_seconds=0.5))
    assert pull(origin.url, "small").pulls[0].pause >= 0.45


def test_downloads_while_it_is_asked__probes_beside(origin: Origin) -> None:
    with Downloads(origin.url + origin.layer_path("small"), 2) as downloads:
        times = probe(origin.url + origin.manifest_path("small"), 0.5)
    assert times
    assert downloads.result.received
