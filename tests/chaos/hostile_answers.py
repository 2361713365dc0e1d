"""What hostile registries say: pieces of scripts, and the honest answers that stand around them."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from tests.chaos.hostile_server import Exchange, Script

KIB = 2**10
MIB = 2**20
DRIP_SECONDS = 0.05
_BLOCK = 64 * KIB
_PAUSE = 0.008
_BOMB_MEMBERS = 32
_LARGE_ENOUGH = 3 * 10**9

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY_INDEX = f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}'.encode()
DEEP = b'{"token":"a","tags":[],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BOMB = gzip.compress(bytes(2**30 // _BOMB_MEMBERS)) * _BOMB_MEMBERS


class Image:
    """A manifest, and the one layer of 1 MiB that it names."""

    def __init__(self, name: str) -> None:
        self.layer = random.Random(name).randbytes(MIB)
        self.digest = _digest(self.layer)
        """Of the layer."""
        described = {"mediaType": "application/octet-stream", "digest": self.digest, "size": MIB}
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": [described]}
        self.manifest = json.dumps(document).encode()
        self.manifest_digest = _digest(self.manifest)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


PLAIN = Image("plain")

Headers = Mapping[str, str] | Sequence[tuple[str, str]]


def head(status: object = 200, headers: Headers = (), version: str = "HTTP/1.1") -> bytes:
    """Return the head of an answer, as it is given; characters up to 255 are bytes."""
    lines = [f"{version} {status} Hm"]
    lines += [f"{name}: {value}" for name, value in (headers.items() if isinstance(headers, Mapping) else headers)]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")


def full(body: bytes, status: object = 200, headers: Headers = ()) -> bytes:
    """Return a whole answer, its length with it."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    return head(status, [*pairs, ("Content-Length", str(len(body)))]) + body


def manifest(*extra: tuple[str, str], image: Image = PLAIN) -> bytes:
    """Return the honest answer for a manifest, with more headers."""
    lines = [("Content-Type", OCI_MANIFEST), ("Docker-Content-Digest", image.manifest_digest)]
    return full(image.manifest, 200, [*lines, *extra])


def challenge(realm: str, *extra: tuple[str, str]) -> bytes:
    """Return a 401 that leads to a realm, with a cookie that nobody should bring back."""
    lines = [("WWW-Authenticate", f'Bearer realm="{realm}",service="s"'), ("Set-Cookie", "crumb=1; Path=/")]
    return full(b"{}", 401, [*lines, *extra])


def token(exchange: Exchange, **more: object) -> bytes:
    """Return the honest answer of the realm: a token for whoever knows the password."""
    secrets = exchange.peer.secrets
    if secrets.basic not in exchange.heard.header("Authorization"):
        return full(b"{}", 401)
    return full(json.dumps({"token": secrets.token, "expires_in": 300, **more}).encode())


def says(answer: bytes) -> Script:
    """Return the script that gives one answer to everything."""

    async def script(exchange: Exchange) -> None:
        await exchange.answer(answer)

    return script


def holds(*pieces: bytes) -> Script:
    """Return the script that sends some pieces, and then nothing, for as long as the client stays."""

    async def script(exchange: Exchange) -> None:
        for piece in pieces:
            await exchange.send(piece)
        await asyncio.Event().wait()

    return script


def pours(first: bytes, block: bytes, most: float = _LARGE_ENOUGH) -> Script:
    """Return the script that sends a beginning, and then the same again and again, as fast as a good line would."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(first)
        sent = 0
        pieces = block * max(1, _BLOCK // len(block))
        while sent < most:
            await exchange.send(pieces)
            sent += len(pieces)
            await asyncio.sleep(_PAUSE)

    return script


def drips(first: bytes, rest: bytes = b"x") -> Script:
    """Return the script that sends a beginning at once, and the rest byte by byte, over and over."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(first)
        async for piece in _dripping(rest):
            await exchange.send(piece)

    return script


async def _dripping(rest: bytes) -> AsyncIterator[bytes]:
    while True:
        for place in range(len(rest)):
            yield rest[place : place + 1]
            await asyncio.sleep(DRIP_SECONDS)


def resets(first: bytes = b"") -> Script:
    """Return the script that sends a beginning, and then breaks the connection."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(first)
        exchange.reset()

    return script


def leads(location: str | Callable[[Exchange], str], body: bytes = b"", status: int = 307) -> Script:
    """Return the script that redirects everything."""

    async def script(exchange: Exchange) -> None:
        where = location if isinstance(location, str) else location(exchange)
        await exchange.answer(full(body, status, {"Location": where}))

    return script


def in_turn(*scripts: Script) -> Script:
    """Return the script that does something else each time; the last for ever."""
    turns = iter(scripts[:-1])

    async def script(exchange: Exchange) -> None:
        await next(turns, scripts[-1])(exchange)

    return script


def by_path(default: Script, **scripts: Script) -> Script:
    """Return the script that goes by a word in the path."""

    async def script(exchange: Exchange) -> None:
        chosen = [each for word, each in scripts.items() if word in exchange.heard.target]
        await (chosen[0] if chosen else default)(exchange)

    return script


async def _give_token(exchange: Exchange) -> None:
    await exchange.answer(token(exchange))


def behind_token(script: Script, give: Script = _give_token, ask: Script | None = None) -> Script:
    """Return the script of a registry that wants a token before it does what `script` says.

    `give` answers at the realm, and `ask` who comes without a token.
    """

    async def registry(exchange: Exchange) -> None:
        if exchange.heard.target.startswith("/token"):
            await give(exchange)
        elif exchange.heard.header("Authorization"):
            await script(exchange)
        elif ask is not None:
            await ask(exchange)
        else:
            await exchange.answer(challenge(f"{exchange.peer.url}/token"))

    return registry


def with_manifest(image: Image, blobs: Script) -> Script:
    """Return the script of a registry whose manifest is as it should be, and whose blobs are what `blobs` says."""
    return behind_token(by_path(blobs, manifests=says(manifest(image=image))))
