"""Attacks by HTTP itself: bodies, headers, statuses, lengths and framing that no registry sends."""

from __future__ import annotations

import os
from collections.abc import Iterator

from tests.chaos.hostile_answers import (
    BOMB,
    DEEP,
    KIB,
    MIB,
    OCI_MANIFEST,
    PLAIN,
    behind_token,
    drips,
    full,
    head,
    holds,
    manifest,
    pours,
    resets,
    says,
)
from tests.chaos.hostile_case import (
    CHUNK,
    CHUNKED,
    GZIP,
    OK,
    WITH_LENGTH,
    Case,
    blob_case,
)
from tests.chaos.hostile_server import Exchange

_DECLARED = {"Content-Type": OCI_MANIFEST, "Content-Length": str(2**40)}


def bodies() -> Iterator[Case]:
    yield Case("a manifest without an end", behind_token(pours(CHUNKED, CHUNK)))
    yield Case("a manifest of 1 TiB", behind_token(pours(head(200, _DECLARED), b" " * MIB)))
    yield Case("a manifest without an end, without a length", behind_token(pours(head(200), b" " * MIB)))
    yield Case("a manifest byte by byte", behind_token(drips(head(200, WITH_LENGTH))))
    yield Case("a manifest that stops half-way", behind_token(holds(head(200, WITH_LENGTH), PLAIN.manifest)))
    yield Case("a manifest cut short", behind_token(says(head(200, WITH_LENGTH) + PLAIN.manifest)))
    yield Case("a gzip bomb", behind_token(says(full(BOMB, 200, GZIP))))
    coded = head(200, {"Transfer-Encoding": "gzip, chunked"}) + b"%x\r\n" % len(BOMB) + BOMB + b"\r\n0\r\n\r\n"
    yield Case("a gzip bomb as transfer coding", behind_token(says(coded)))
    yield Case("a manifest of another digest", behind_token(says(manifest())), "digest")
    lie = [("Docker-Content-Digest", f"sha256:{'0' * 64}")]
    yield Case("a digest header that lies", behind_token(says(full(PLAIN.manifest, 200, lie))))
    yield Case("a page instead of a manifest", behind_token(says(full(b"<html>", 200, {"Content-Type": "text/html"}))))
    yield Case("a manifest nested deeply", behind_token(says(full(DEEP))), outcomes=("503", "other"))
    signed = b'{"schemaVersion":1,"signatures":[{"protected":"%s"}]}' % (b"W1tb" * 100_000)
    yield Case("a signature nested deeply", behind_token(says(full(signed))), outcomes=("503", "other"))
    odd = full(PLAIN.manifest, 200, {"Content-Type": "application/\xff\xfe"})
    yield Case("a media type that is no text", behind_token(says(odd)), outcomes=("200", "503"))
    old = head(200, version="HTTP/1.0") + PLAIN.manifest
    yield Case("HTTP/1.0", behind_token(says(old)), outcomes=("200",))
    yield Case("a 404 without an end", behind_token(pours(head(404), b"x" * MIB)), outcomes=("404", "503"))
    yield Case("a 404 byte by byte", behind_token(drips(head(404))), outcomes=("404", "503"))

    async def endless(exchange: Exchange) -> None:
        lines = {"WWW-Authenticate": f'Bearer realm="{exchange.peer.url}/token"'}
        await pours(head(401, lines), b"x" * MIB)(exchange)

    yield Case("a challenge without an end", behind_token(OK, ask=endless), outcomes=("200",))


def heads() -> Iterator[Case]:
    many = [(f"X-{number}", "x" * 4000) for number in range(262)]
    yield Case("1 MB of headers", behind_token(says(manifest(*many))))
    yield Case("1 MB of one header", behind_token(says(manifest(("X-Long", "x" * MIB)))))
    yield Case("a million small headers", behind_token(pours(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n")))
    yield Case("a header without an end", behind_token(pours(b"HTTP/1.1 200 OK\r\nX: ", b"x" * KIB)))
    yield Case("headers byte by byte", behind_token(drips(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")))
    yield Case("a status line byte by byte", behind_token(drips(b"HTTP/1.1 200 ")))
    yield Case("a status line without an end", behind_token(pours(b"HTTP/1.1 200 ", b"O" * KIB)))
    yield blob_case("blob headers byte by byte", drips(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), "blob")
    yield blob_case("a blob's silence", holds(), "blob")
    continues = b"HTTP/1.1 100 Continue\r\n\r\n"
    yield Case("100-continue for ever", behind_token(pours(b"", continues)))
    yield Case("100-continue again and again", behind_token(drips(b"", continues)))
    yield Case("100-continue, then silence, for a manifest", behind_token(holds(continues)))
    yield blob_case("100-continue, then silence, for a blob", holds(continues), "blob")
    odd = manifest().replace(b"Content-Type", b"X-Odd: a\x00b\x7f\r\nContent-Type", 1)
    yield Case("control characters in a header", behind_token(says(odd)), outcomes=("200", "503"))
    folded = manifest().replace(b"Content-Type", b"X-Folded: a\r\n b\r\nContent-Type", 1)
    yield Case("a folded header", behind_token(says(folded)), outcomes=("200", "503"))
    limits = {"ratelimit-limit": "9" * 5000, "ratelimit-remaining": "-1;w=nan", "docker-ratelimit-source": "\xff"}
    yield Case("absurd limits", behind_token(says(manifest(*limits.items()))), outcomes=("200",))
    zero = {"ratelimit-limit": "0;w=0", "ratelimit-remaining": "1e400;w=-1"}
    yield Case("limits of nothing", behind_token(says(manifest(*zero.items()))), outcomes=("200",))
    late = {"Retry-After": "9" * 4000}
    yield Case("429 for ever", behind_token(says(full(b"", 429, late))), outcomes=("429",))
    yield Case("503 for ever", behind_token(says(full(b"", 503, late))))
    dated = {"Retry-After": "Fri, 31 Dec 99999 23:59:59 GMT" + "(" * 4000}
    yield Case("429 until a date that is none", behind_token(says(full(b"", 429, dated))), outcomes=("429",))


def statuses() -> Iterator[Case]:
    for status in ("299", "600", "999", "204", "206", "304", "226", "300"):
        yield Case(f"status {status}", behind_token(says(full(PLAIN.manifest, status))))
    for status in ("000", "-1", "20", "2OO", "20000", "101", "199"):
        yield Case(f"status {status}", behind_token(says(full(PLAIN.manifest, status))), outcomes=("503", "200"))
    yield blob_case("status 206 of a blob", says(full(b"x", 206)), "blob")
    yield blob_case("status 416 of a blob", says(full(b"", 416)), "blob", ("503", "404"))


def lengths() -> Iterator[Case]:
    for length in ("-1", str(2**63), "1" + "0" * 30, "9" * 5000, "abc", "", "5, 6", "+5", "0x10"):
        answer = head(200, {"Content-Length": length}) + PLAIN.manifest
        yield Case(f"Content-Length {length[:20]!r}", behind_token(says(answer)), outcomes=("503",))
        blob = head(200, {"Content-Length": length}) + bytes(MIB)
        yield blob_case(f"a blob's Content-Length {length[:20]!r}", says(blob), "blob", ("503", "cut"))
    two = head(200, [("Content-Length", str(len(PLAIN.manifest))), ("Content-Length", "5")]) + PLAIN.manifest
    yield Case("two lengths", behind_token(says(two)))
    both = head(200, [("Content-Length", "5"), ("Transfer-Encoding", "chunked")])
    both += b"%x\r\n" % len(PLAIN.manifest) + PLAIN.manifest + b"\r\n0\r\n\r\n"
    yield Case("a length and chunks", behind_token(says(both)), outcomes=("200", "503"))
    large = head(200, {"Content-Length": str(2**62)}) + bytes(MIB)
    yield blob_case("the head of a blob of 4 EiB", says(large), "head", ("200", "503"))
    yield blob_case("the head of a blob, and a body", holds(full(bytes(MIB))), "head", ("200", "503"))


def framing() -> Iterator[Case]:
    for name, chunk in {
        "that is no number": b"zz\r\n",
        "below zero": b"-5\r\n",
        "of 2^64 and more": b"1" + b"0" * 16 + b"\r\n",
        "without its line's end": b"5\r\nabcdefgh\r\n",
        "that never comes": b"ffff\r\nabc",
    }.items():
        yield Case(f"a chunk {name}", behind_token(says(CHUNKED + chunk)))
        yield blob_case(f"a blob's chunk {name}", says(CHUNKED + chunk), "blob", ("503", "cut"))
    yield Case("a chunk extension without an end", behind_token(pours(CHUNKED + b"5;", b"x" * KIB)))
    yield Case("trailers without an end", behind_token(pours(CHUNKED + b"0\r\n", b"a: b\r\n")))
    yield Case("garbage", behind_token(says(os.urandom(10 * KIB))))
    yield Case("another protocol", behind_token(says(b"SSH-2.0-OpenSSH_9.2p1\r\n")))
    yield Case("HTTP/2", behind_token(says(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")))
    yield Case("HTTP/0.9", behind_token(says(PLAIN.manifest)))
    yield Case("nothing", behind_token(says(b"")))
    yield Case("a reset", behind_token(resets()))
    yield Case("a reset half-way", behind_token(resets(head(200, WITH_LENGTH) + PLAIN.manifest)))
    yield Case("two answers to one request", behind_token(says(manifest() * 2)), outcomes=("200", "503"))
    yield Case("plain HTTP where TLS belongs", OK, scheme="plain")
    yield Case("garbage where TLS belongs", says(os.urandom(10 * KIB)), scheme="plain")
    yield Case("garbage without an end where TLS belongs", pours(b"\x16\x03\x03", os.urandom(KIB)), scheme="plain")
    yield Case("a TLS record byte by byte", drips(b"\x16\x03\x03\x40\x00", b"x"), scheme="plain")
    yield Case("silence where TLS belongs", holds(), scheme="plain")
