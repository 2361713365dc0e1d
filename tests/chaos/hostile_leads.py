"""Attacks by where an upstream leads: redirects, challenges, and what its realms give out."""

from __future__ import annotations

import os
from collections.abc import Iterator

from tests.chaos.hostile_answers import (
    BOMB,
    DEEP,
    MIB,
    behind_token,
    by_path,
    challenge,
    drips,
    full,
    head,
    holds,
    leads,
    pours,
    says,
    token,
)
from tests.chaos.hostile_case import (
    OK,
    WITH_LENGTH,
    Case,
)
from tests.chaos.hostile_server import Exchange, Script


def redirects() -> Iterator[Case]:
    hops = iter(range(10**6))
    yield Case("a redirect to itself", behind_token(leads(lambda exchange: exchange.heard.target)))
    there_and_back = leads(lambda exchange: "/v2/a" if exchange.heard.target != "/v2/a" else "/v2/b")
    yield Case("a redirect in a circle", behind_token(there_and_back))
    yield Case("redirects without an end", behind_token(leads(lambda exchange: f"/v2/hop/{next(hops)}")))
    with_body = leads(lambda exchange: f"/v2/big/{next(hops)}", BOMB)
    yield Case("redirects with large bodies", behind_token(with_body))
    endless = pours(head(307, {"Location": "/v2/good"}), b"x" * MIB)
    yield Case("a redirect whose body never ends", behind_token(by_path(endless, good=OK)), outcomes=("200", "503"))
    for location in (
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "javascript:alert(1)",
        "http://[",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:abc/",
        "http://\xff\xfe/",
        "/\xff\xfe",
        "http://" + "a" * 300 + "/",
        "http://a..b/",
        "http:///",
        "//",
        "",
        "x" * 8000,
    ):
        yield Case(f"a redirect to {location[:30]!r}", behind_token(leads(location)))
    foreign = behind_token(leads(lambda exchange: f"{exchange.peer.elsewhere}/challenge"))
    yield Case("a redirect to a challenge elsewhere", foreign, outcomes=("403", "503"))
    foreign = behind_token(by_path(leads(lambda exchange: f"{exchange.peer.elsewhere}/challenge"), manifests=OK))
    yield Case("a blob's redirect to a challenge elsewhere", foreign, "blob", ("403", "503"))
    login = behind_token(leads(lambda exchange: exchange.peer.elsewhere.replace("//", "//who:what@") + "/manifest"))
    yield Case("a redirect with a login in it", login, outcomes=("200", "503"))
    away = behind_token(leads(lambda exchange: f"{exchange.peer.elsewhere}/manifest"))
    yield Case("a redirect elsewhere", away, outcomes=("200",))
    yield Case("a redirect from https to http", away, scheme="https")


def challenges() -> Iterator[Case]:
    refused = ("403", "503")

    def asking(*lines: str) -> Script:
        return behind_token(OK, ask=says(full(b"{}", 401, [("WWW-Authenticate", line) for line in lines])))

    async def elsewhere(exchange: Exchange) -> None:
        await exchange.answer(challenge(f"{exchange.peer.elsewhere}/token"))

    yield Case("another realm for a token that was good", behind_token(elsewhere), outcomes=refused)
    yield Case("a challenge to everything", behind_token(says(challenge("http://127.0.0.1:1/"))), outcomes=refused)

    async def again(exchange: Exchange) -> None:
        await exchange.answer(challenge(f"{exchange.peer.url}/token", ("X-Nonce", os.urandom(8).hex())))

    yield Case("401 to everything", behind_token(again), outcomes=refused)
    yield Case("a realm from https to http", behind_token(OK, ask=elsewhere), outcomes=refused, scheme="https")
    yield Case("a realm of 7 KB", asking(f'Bearer realm="http://127.0.0.1:1/{"x" * 7000}"'), outcomes=refused)
    yield Case("a thousand challenges", asking(*['Bearer realm="http://127.0.0.1:1/"'] * 100), outcomes=refused)
    yield Case("a challenge of 1 MB", asking(*["Digest " + "a=b, " * 1500] * 120), outcomes=refused)
    yield Case(
        "a service that is no text", asking('Bearer realm="http://127.0.0.1:1/",service="\xff"'), outcomes=refused
    )
    yield Case("a scope that is no text", asking('Bearer realm="http://127.0.0.1:1/",scope="\xff"'), outcomes=refused)
    for realm in ("", "/token", "http://[", "http://\xff/", "ftp://127.0.0.1/", "http://a b/", "file:///etc/passwd"):
        yield Case(f"realm {realm!r}", asking(f'Bearer realm="{realm}"'), outcomes=refused)
    blanks = asking(*['Bearer realm="http://127.0.0.1:1/"' + " " * 7900 + '"'] * 6)
    yield Case("challenges of blanks", blanks, outcomes=refused, is_alone=True)
    slashes = asking(*['Bearer realm="' + "\\" * 7900] * 100, *["=" * 7900, "a" * 7900 + "\x01"] * 10)
    yield Case("challenges of backslashes", slashes, outcomes=refused, is_alone=True)


def tokens() -> Iterator[Case]:
    refused = ("403", "503")

    def giving(answer: bytes) -> Script:
        return behind_token(OK, give=says(answer))

    async def long(exchange: Exchange) -> None:
        await exchange.answer(full(b'{"token":"%s"}' % (exchange.peer.secrets.token.encode() * 100_000)))

    yield Case("a token of 2 MB", behind_token(OK, give=long), outcomes=refused)
    endless = pours(head(200), b" " * MIB)
    yield Case("a token answer without an end", behind_token(OK, give=endless), outcomes=refused)
    yield Case("a token byte by byte", behind_token(OK, give=drips(head(200, WITH_LENGTH))), outcomes=refused)
    yield Case("a token that never comes", behind_token(OK, give=holds()), outcomes=refused)
    yield Case("a token in a gzip bomb", giving(full(BOMB, 200, {"Content-Encoding": "gzip"})), outcomes=refused)
    yield Case("a token nested deeply", giving(full(DEEP)), outcomes=("200", *refused))
    yield Case("a token of two lines", giving(full(b'{"token":"a\\r\\nX-Evil: b"}')), outcomes=refused)
    yield Case("a token that is no text", giving(full(b'{"token":"\xff\xfe"}')), outcomes=refused)
    yield Case("a token that is a number", giving(full(b'{"token":5,"access_token":[]}')), outcomes=("200", *refused))
    yield Case("no JSON at the realm", giving(full(b"<html>")), outcomes=refused)
    yield Case("500 at the realm", giving(full(b"", 500)), outcomes=refused)
    for lifetime in ("nan", "inf", "-inf", "-1", "1e308"):

        async def lasting(exchange: Exchange, lifetime: str = lifetime) -> None:
            await exchange.answer(token(exchange, expires_in=lifetime, issued_at="9" * 400))

        yield Case(f"a token for {lifetime} s", behind_token(OK, give=lasting), outcomes=("200",))
    away = leads(lambda exchange: f"{exchange.peer.elsewhere}/token")
    yield Case("a realm that redirects", behind_token(OK, give=away), outcomes=refused)
