"""Attacks by content: blobs, what follows when one breaks off, and listings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.chaos.hostile_answers import (
    BOMB,
    DEEP,
    EMPTY_INDEX,
    MIB,
    OCI_INDEX,
    PLAIN,
    behind_token,
    drips,
    full,
    head,
    holds,
    leads,
    pours,
    says,
    with_manifest,
)
from tests.chaos.hostile_case import (
    CHUNK,
    CHUNKED,
    GZIP,
    WITH_LENGTH,
    Case,
    blob_case,
    layer_case,
)
from tests.chaos.hostile_server import Exchange, Script


def blobs() -> Iterator[Case]:
    cut = ("503", "cut")
    yield blob_case("a blob of another digest", says(full(bytes(MIB))), "blob", cut)
    yield blob_case("a layer of another digest", says(full(bytes(MIB))), "layer", cut)
    yield blob_case("a small blob of another digest", says(full(b"small")), "blob", cut)
    yield blob_case("an empty blob of another digest", says(full(b"")), "blob", cut)
    yield blob_case("a layer without an end", pours(CHUNKED, CHUNK), "layer", cut)
    yield blob_case("a layer without an end or a length", pours(head(200), b"x" * MIB), "layer", cut)
    yield layer_case("a layer that is longer than it should", lambda layer: says(full(layer * 2)))
    yield layer_case("a layer that is shorter than it should", lambda layer: says(full(layer[:-1])))
    yield layer_case("a layer byte by byte", lambda layer: drips(head(200, WITH_LENGTH), layer))._replace(crawls=True)
    yield layer_case(
        "a layer whose half comes byte by byte", lambda layer: drips(_half(layer), layer[_HALF:])
    )._replace(crawls=True)
    yield layer_case("a layer that stops half-way", lambda layer: holds(_half(layer)))._replace(crawls=True)
    yield layer_case("a layer cut at its half, always", lambda layer: says(_half(layer)))
    yield blob_case("a layer in a gzip bomb", says(full(BOMB, 200, {"Content-Encoding": "gzip"})), "layer", cut)
    yield blob_case("a blob's redirect to itself", leads(lambda exchange: exchange.heard.target))
    away = with_manifest(PLAIN, leads(lambda exchange: f"{exchange.peer.elsewhere}/blob"))
    yield Case("a blob elsewhere", away, "layer", ("200",))


_HALF = MIB // 2


def _half(layer: bytes) -> bytes:
    return head(200, WITH_LENGTH) + layer[:_HALF]


def _ranged(said: str) -> Callable[[bytes], bytes]:
    return lambda rest: full(rest, 206, {"Content-Range": said})


def resumed() -> Iterator[Case]:
    """Answers to the request for the rest of a layer that was cut at its half."""
    size = MIB

    def resumed(name: str, rest: Callable[[bytes], bytes], outcomes: tuple[str, ...] = ("503", "cut")) -> Case:
        return layer_case(
            name, lambda layer: says(_half(layer)), lambda layer: says(rest(layer[_HALF:])), outcomes=outcomes
        )

    for said in (
        f"bytes {_HALF + 1}-{size - 1}/{size}",
        f"bytes {_HALF}-{size - 1}/{size + 1}",
        f"bytes {_HALF}-{size}/{size + 1}",
        f"bytes 0-{size - 1}/{size}",
        f"bytes {_HALF}-{size - 1}/*",
        f"bytes {_HALF}-/{size}",
        f"bytes {'9' * 5000}-{size - 1}/{size}",
        "nonsense",
        "",
    ):
        yield resumed(f"Content-Range {said[:30]!r}", _ranged(said))
    exact = {"Content-Range": f"bytes {_HALF}-{size - 1}/{size}"}
    parts = {"Content-Type": "multipart/byteranges; boundary=x"}
    yield resumed("a rest of zeros", lambda rest: full(bytes(_HALF), 206, exact))
    yield resumed("a rest with another length", lambda rest: full(rest + rest, 206, exact))
    yield resumed("a rest that is refused", lambda rest: full(b"", 416, {"Content-Range": "bytes */1"}))
    yield resumed("a rest in parts", lambda rest: full(rest, 206, parts))
    yield resumed("an honest rest", lambda rest: full(rest, 206, exact), ("200",))


def lists() -> Iterator[Case]:
    page = b'{"name":"a","tags":["1"]}'

    def linking(*links: str) -> Script:
        return behind_token(says(full(page, 200, [("Link", link) for link in links])))

    async def itself(exchange: Exchange) -> None:
        await exchange.answer(full(page, 200, {"Link": f'<{exchange.heard.target}>; rel="next"'}))

    async def elsewhere(exchange: Exchange) -> None:
        await exchange.answer(full(page, 200, {"Link": f'<{exchange.peer.elsewhere}/v2/a/tags/list?n=1>; rel="next"'}))

    okay = ("200", "503")
    yield Case("a page that leads to itself", behind_token(itself), "tags", ("200",))
    yield Case("a page that leads elsewhere", behind_token(elsewhere), "tags", ("200",))
    yield Case("a page that leads to no text", linking('</v2/a/tags/list?last=\xff>; rel="next"'), "tags", okay)
    yield Case("a page that leads to another line", linking('<?last=%0d%0aX-Evil:b>; rel="next"'), "tags", okay)
    yield Case("tags without an end", behind_token(pours(CHUNKED, CHUNK)), "tags")
    yield Case("tags byte by byte", behind_token(drips(head(200, WITH_LENGTH))), "tags")
    yield Case("tags in a gzip bomb", behind_token(says(full(BOMB, 200, GZIP))), "tags")
    yield Case("tags nested deeply", behind_token(says(full(DEEP))), "tags", okay)
    yield Case("tags that are no list", behind_token(says(full(b'{"tags":{"a":5}}'))), "tags", okay)
    filters = says(full(EMPTY_INDEX, 200, {"Content-Type": OCI_INDEX, "OCI-Filters-Applied": "\xff\xfe"}))
    yield Case("filters that are no text", behind_token(filters), "referrers", okay)
    index = head(200, {"Content-Type": OCI_INDEX, "Transfer-Encoding": "chunked"})
    yield Case("referrers without an end", behind_token(pours(index, CHUNK)), "referrers")
    login = says(full(b"<html>", 200, {"Content-Type": "text/html"}))
    yield Case("a login page for referrers", behind_token(login), "referrers", ("404", "200"))
    yield Case("links of brackets", linking(*["<" * 7900] * 10), "tags", okay, is_alone=True)
    yield Case("links without an end", linking(*["<>;" * 2600, "<>; rel " * 900] * 10), "tags", okay, is_alone=True)
