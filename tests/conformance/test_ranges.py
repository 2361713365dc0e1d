"""Range requests on blobs and manifests (RFC 9110, section 14)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.conformance.wire import Door, assert_error, assert_plain, parts
from tests.upstream import Image, Upstream


@dataclass(frozen=True)
class Content:
    """Something with bytes; `media_type` is what parts of it are said to be."""

    target: str
    digest: str
    media_type: str
    data: bytes

    @property
    def size(self) -> int:
        """Return the number of bytes."""
        return len(self.data)


@pytest.fixture(params=["blob", "manifest by digest", "manifest by tag"])
def content(request: pytest.FixtureRequest, upstream: Upstream, image: Image) -> Content:
    base = f"/v2/{image.repository}"
    if request.param == "blob":
        blob = image.layers[1]
        target, digest, media_type = f"{base}/blobs/{blob.digest}", blob.digest, "application/octet-stream"
    else:
        digest, media_type = image.index.digest, image.index.media_type
        target = f"{base}/manifests/{image.tag if 'tag' in request.param else digest}"
    return Content(target, digest, media_type, upstream.content(digest))


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("0-0", 0, 1),
        ("100-299", 100, 300),
        ("100-", 100, None),
        ("0-", 0, None),
        ("-50", -50, None),
        ("-1", -1, None),
        ("200-99999999", 200, None),
        ("-99999999", 0, None),
    ],
)
def test_answers_one_range__with_just_those_bytes(
    door: Door, content: Content, asked: str, start: int, stop: int | None
) -> None:
    answer = door.get(content.target, {"Range": f"bytes={asked}"})
    first, end, _ = slice(start, stop).indices(content.size)
    assert answer.status == 206
    assert_plain(answer)
    assert answer.headers["Content-Range"] == f"bytes {first}-{end - 1}/{content.size}"
    assert answer.headers["Content-Type"] == content.media_type
    assert answer.headers["Docker-Content-Digest"] == content.digest
    assert answer.headers["ETag"] == f'"{content.digest}"'
    assert answer.length == end - first
    assert answer.body == content.data[first:end]


@pytest.mark.parametrize("asked", ["500-0", "{size}-", "{size}-{size}", "-0", "{size}-,-0", "x-y", "", "-", "1-2;3"])
def test_answers_416__no_such_range(door: Door, content: Content, asked: str) -> None:
    answer = door.get(content.target, {"Range": f"bytes={asked.format(size=content.size)}"})
    assert_error(answer, 416, "RANGE_INVALID")
    assert answer.headers["Content-Range"] == f"bytes */{content.size}"


def test_answers_in_full__unit_unknown(door: Door, content: Content) -> None:
    answer = door.get(content.target, {"Range": "pages=0-1"})
    assert answer.status == 200
    assert answer.body == content.data


def test_answers_head_in_full__with_a_range(door: Door, content: Content) -> None:
    answer = door.head(content.target, {"Range": "bytes=0-9"})
    assert answer.status == 200
    assert answer.length == content.size


def test_heeds_if_range(door: Door, content: Content) -> None:
    same = door.get(content.target, {"Range": "bytes=0-9", "If-Range": f'"{content.digest}"'})
    assert (same.status, same.body) == (206, content.data[:10])
    for other in ('"other"', f'W/"{content.digest}"', "Tue, 15 Nov 1994 12:45:26 GMT"):
        answer = door.get(content.target, {"Range": "bytes=0-9", "If-Range": other})
        assert (answer.status, answer.body) == (200, content.data)


def test_prefers_304_to_a_range__if_none_match_names_it(door: Door, content: Content) -> None:
    answer = door.get(content.target, {"Range": "bytes=0-9", "If-None-Match": f'"{content.digest}"'})
    assert answer.status == 304


def test_answers_many_ranges__in_the_order_asked(door: Door, content: Content) -> None:
    answer = door.get(content.target, {"Range": "bytes=200-299, 0-9 ,-20,100-100,,150-199"})
    assert answer.status == 206
    assert_plain(answer)
    assert "Content-Range" not in answer.headers
    assert answer.headers["Docker-Content-Digest"] == content.digest
    assert answer.length == len(answer.body)
    size = content.size
    expected = [(200, 300), (0, 10), (size - 20, size), (100, 101), (150, 200)]
    received = parts(answer)
    assert [(part.start, part.stop) for part in received] == expected
    assert all(part.size == size and part.media_type == content.media_type for part in received)
    assert all(part.body == content.data[part.start : part.stop] for part in received)


def test_leaves_out_what_lies_beyond_the_end__of_many_ranges(door: Door, content: Content) -> None:
    size = content.size
    answer = door.get(content.target, {"Range": f"bytes=0-0,{size}-{size + 5},2-2"})
    assert answer.status == 206
    assert [(part.start, part.stop) for part in parts(answer)] == [(0, 1), (2, 3)]


def test_answers_1024_ranges__in_a_header_of_20_kb(door: Door, upstream: Upstream, image: Image) -> None:
    blob = image.layers[1]
    data = upstream.content(blob.digest)
    starts = [number * 290 for number in reversed(range(1_024))]
    asked = ",".join(f"{start:09}-{start + number % 7:09}" for number, start in enumerate(starts))
    assert len(asked) > 20_000
    answer = door.get(f"/v2/{image.repository}/blobs/{blob.digest}", {"Range": f"bytes={asked}"})
    assert answer.status == 206
    assert answer.length == len(answer.body)
    received = parts(answer)
    assert [part.start for part in received] == starts
    assert [part.body for part in received] == [
        data[start : start + number % 7 + 1] for number, start in enumerate(starts)
    ]


def test_answers_ranges_of_sha512(door: Door, upstream: Upstream, repository: str) -> None:
    data = bytes(range(256)) * 8
    digest = upstream.push_blob(repository, data, "sha512")
    for _ in ("cold", "warm"):
        for asked, expected in {"500-1499": data[500:1500], "500-": data[500:], "-500": data[-500:]}.items():
            answer = door.get(f"/v2/{repository}/blobs/{digest}", {"Range": f"bytes={asked}"})
            assert (answer.status, answer.body) == (206, expected)
