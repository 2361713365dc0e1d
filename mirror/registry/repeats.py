"""Requests for manifests that come again in the very same bytes, as a fleet's do: not parsed again."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import NamedTuple

from aiohttp import HttpVersion11, web
from aiohttp.http import SERVER_SOFTWARE

from mirror.channel import ManifestFound
from mirror.observe.cache_status import Outcome
from mirror.oci.errors import RegistryError
from mirror.pull import Pull
from mirror.registry.responses import content_headers
from mirror.registry.routing import Kind, Target
from mirror.store.recent import Recent

_LONGEST = 4096
_REMEMBERED_BYTES = 16 * 2**20
_KNOWN_BYTES = 2048
# What an answer depends on beside method and target, now or once callers have names.
_SPECIAL = ("Authorization", "If-None-Match", "Range")


class Asked(NamedTuple):
    """What the bytes of a request's head were found to ask for."""

    method: str
    raw_path: str
    target: Target


class Repeat(NamedTuple):
    """The answer to a request that came again: its head as it goes over the wire, and its body."""

    asked: Asked
    outcome: Outcome
    head: bytes
    body: bytes


class Repeats:
    """What request heads ask for, by their bytes, and how they were answered last.

    A head is known once its request went the whole way, so that aiohttp has parsed these very bytes. What it is
    answered is looked up each time: only what is held and fresh is answered from here.
    """

    def __init__(self, pull: Pull) -> None:
        self._pull = pull
        self._known: Recent[bytes, _Known] = Recent(_REMEMBERED_BYTES)

    def learn(self, head: bytes, request: web.BaseRequest, target: Target) -> None:
        """Remember what a head asks for, if nothing else decides how it is answered."""
        if target.kind is not Kind.MANIFEST or not head or len(head) > _LONGEST or head in self._known:
            return
        is_plain = not any(name in request.headers for name in _SPECIAL)
        if is_plain and request.version == HttpVersion11 and request.keep_alive:
            known = _Known(Asked(request.method, request.raw_path, target))
            self._known.put(head, known, len(head) + _KNOWN_BYTES)

    def answer(self, head: bytes) -> Repeat | None:
        """Return the answer to a request, None if it has to go the whole way."""
        known = self._known.get(head)
        if known is None:
            return None
        target = known.asked.target
        assert target.repository is not None
        assert target.reference is not None
        try:
            found = self._pull.held_manifest(target.repository, target.reference)
        except RegistryError:
            return None
        if found is None:
            return None
        body = b"" if known.asked.method == "HEAD" else found.body
        return Repeat(known.asked, found.status.outcome, known.head_of(found), body)


class _Known:
    """A head that is known, and the head of its last answer with what that was made from."""

    __slots__ = ("_made", "_made_from", "asked")

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self._made = b""
        self._made_from: object = None

    def head_of(self, found: ManifestFound) -> bytes:
        """Return the head of an answer, made anew only if it is another than before."""
        now = int(time.time())
        made_from = (found.digest, found.media_type, found.status, now)
        if made_from != self._made_from:
            self._made = _render(self.asked.target, found, now)
            self._made_from = made_from
        return self._made


def _render(target: Target, found: ManifestFound, now: int) -> bytes:
    """Return the head of an answer as aiohttp would write it."""
    headers = {
        **content_headers(target, found.digest, found.media_type, found.status),
        "Content-Length": str(len(found.body)),
        "Date": formatdate(now, usegmt=True),
        "Server": SERVER_SOFTWARE,
    }
    lines = "\r\n".join(f"{name}: {value}" for name, value in headers.items())
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n\r\n".encode()
