"""The origin: its line, its faults, and that it is a registry."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.benchmarks.content import MIB, make_image
from tests.benchmarks.origin import WAN, Faults, Line, Origin
from tests.benchmarks.origin.http import span
from tests.benchmarks.origin.line import Pace, answered_at

_SIZE = 6 * MIB + 5


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin({"small": [_SIZE]}, Line(redirects=True)) as running:
        yield running


def _get(url: str, **headers: str) -> tuple[int, bytes]:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return answer.status, answer.read()


def test_costs_a_round_trip_to_connect_and_one_to_ask__line() -> None:
    line = Line(round_trip=0.04)
    assert answered_at(line, opened=1.0, asked=1.0) == pytest.approx(1.08)
    assert answered_at(line, opened=1.0, asked=1.03) == pytest.approx(1.08)
    assert answered_at(line, opened=1.0, asked=2.0) == pytest.approx(2.04)


def test_keeps_its_rate__pieces_asked_for_late() -> None:
    pace = Pace(1000)
    now = 10.0
    pace.begin(now)
    for _ in range(100):
        now = pace.through(100, now) + 0.005  # each wakes late
    assert now == pytest.approx(20.0, abs=0.05)
    assert Pace(0).through(100, 5.0) == 5.0


def test_does_not_save_up__idle_line() -> None:
    pace = Pace(1000)
    pace.begin(10.0)
    assert pace.through(100, 10.0) == pytest.approx(10.1)
    pace.end()
    pace.begin(99.0)
    assert pace.through(1000, 99.0) == pytest.approx(100.0)


def test_stalls_once_for_each_offset__several() -> None:
    faults = Faults(stalls=[30, 10])
    assert [faults.stall_within(0, 10), faults.stall_within(0, 40), faults.stall_within(0, 40)] == [None, 10, 30]
    assert faults.stall_within(0, 40) is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-9", (0, 10)),
        ("bytes=90-", (90, 100)),
        ("bytes=90-200", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=100-", (0, 0)),
        ("bytes=0-1,5-6", None),
    ],
)
def test_reads_ranges__every_form(header: str | None, expected: tuple[int, int] | None) -> None:
    assert span(header, 100) == expected


def test_answers_as_a_registry__whole_image(origin: Origin) -> None:
    image = make_image("small", [_SIZE])
    assert _get(f"{origin.url}/v2/")[0] == 200
    index = json.loads(_get(origin.url + origin.manifest_path("small"))[1])
    assert index["manifests"][0]["digest"] == image.manifest.digest == origin.images["small"].manifest
    _, body = _get(origin.url + origin.layer_path("small"))
    assert f"sha256:{hashlib.sha256(body).hexdigest()}" == image.blobs[1].digest
    assert _get(origin.url + origin.layer_path("small"), Range=f"bytes={MIB}-{MIB + 99}") == (206, body[MIB:][:100])
    assert origin.cost().sent == _SIZE + 100
    with pytest.raises(urllib.error.HTTPError, match="404"):
        _get(origin.url + origin.manifest_path("other"))


def test_fails_as_told__one_fault_after_the_other(origin: Origin) -> None:
    url = origin.url + origin.layer_path("small")
    _, right = _get(url)
    origin.fail(Faults(corrupt=True))
    _, wrong = _get(url)
    assert [offset for offset in range(_SIZE) if right[offset] != wrong[offset]] == [_SIZE // 2]
    origin.fail(Faults(cut=MIB))
    with pytest.raises(Exception, match="IncompleteRead"):
        _get(url)
    origin.fail(Faults(limited=True))
    with pytest.raises(urllib.error.HTTPError, match="429"):
        _get(url)
    origin.fail(Faults(stalls=[MIB], stall_seconds=0.2))
    assert _get(url)[1] == right
    assert origin.cost().faults == 2


@pytest.mark.parametrize(("faults", "status"), [(Faults(limited=True), 429), (Faults(), 404)])
def test_answers_a_head_without_a_body__refused(origin: Origin, faults: Faults, status: int) -> None:
    origin.fail(faults)
    url = urlsplit(origin.url)
    with contextlib.closing(http.client.HTTPConnection(url.netloc, timeout=10)) as connection:
        for _ in range(2):
            connection.request("HEAD", origin.manifest_path("other"))
            # A body would be taken for the beginning of the second answer.
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (status, b"")


def test_takes_at_least_what_the_line_takes__one_connection() -> None:
    with Origin({"small": [_SIZE]}, WAN) as origin:
        began = time.monotonic()
        _get(origin.url + origin.layer_path("small"))
        assert time.monotonic() - began >= 4 * WAN.round_trip + _SIZE / WAN.connection_rate - 0.05
