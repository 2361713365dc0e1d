"""Requests for manifests whose head says nothing new, as those of a fleet do: not parsed again."""

from __future__ import annotations

import re
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
from mirror.registry.routing import Kind, Router, Target
from mirror.store.recent import Recent

_LONGEST = 4096
_FIELDS_BYTES = 2**20
_TARGETS_BYTES = 8 * 2**20
# What it costs to keep a target beside its bytes.
_TARGET_BYTES = 2048
_END_OF_LINE = b"\r\n"
# What an answer depends on beside method and target, now or once callers have names.
_SPECIAL = ("Authorization", "If-None-Match", "Range")
# A target in which every byte stands for itself, so that nobody can read it in two ways.
_PLAIN_LINE = re.compile(rb"(GET|HEAD) (/[A-Za-z0-9][A-Za-z0-9._:/-]*(?:\?ns=[A-Za-z0-9.:-]+)?) HTTP/1\.1")


class Asked(NamedTuple):
    """What a request was found to ask for."""

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
    """What request heads ask for, and how they were answered last.

    The fields of a head are known once aiohttp has parsed these very bytes of them behind a request line. A line is
    taken apart here only if it is as plain as can be, and its target is understood by the router like every other.
    What is answered is looked up each time: only what is held and fresh is answered from here.
    """

    def __init__(self, pull: Pull, router: Router) -> None:
        self._pull = pull
        self._router = router
        self._hosts: Recent[bytes, str] = Recent(_FIELDS_BYTES)
        self._known: Recent[bytes, _Known] = Recent(_TARGETS_BYTES)

    def learn(self, head: bytes, request: web.BaseRequest, target: Target) -> None:
        """Remember the fields of a head, if nothing in them decides how it is answered."""
        if target.kind is not Kind.MANIFEST or not head or len(head) > _LONGEST:
            return
        is_plain = not any(name in request.headers for name in _SPECIAL)
        if is_plain and request.version == HttpVersion11 and request.keep_alive:
            fields = head.partition(_END_OF_LINE)[2]
            self._hosts.put(fields, request.headers.get("Host", ""), len(fields) + _FIELDS_BYTES // 1024)

    def answer(self, head: bytes) -> Repeat | None:
        """Return the answer to a request, None if it has to go the whole way."""
        known = self._known_by(head)
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
        body = b""
        if known.asked.method == "GET":
            body = found.body
            self._pull.pulled(target.repository, found.digest)
        return Repeat(known.asked, found.status.outcome, known.head_of(found), body)

    def _known_by(self, head: bytes) -> _Known | None:
        """Return what is known of a head; None where its fields are not, or its line is not plain."""
        line, _, fields = head.partition(_END_OF_LINE)
        host = self._hosts.get(fields)
        if host is None:
            return None
        key = line + host.encode()
        known = self._known.get(key)
        if known is None:
            asked = self._understood(line, host)
            if asked is None:
                return None
            known = _Known(asked)
            self._known.put(key, known, len(key) + _TARGET_BYTES)
        return known

    def _understood(self, line: bytes, host: str) -> Asked | None:
        plain = _PLAIN_LINE.fullmatch(line)
        if plain is None or len(line) > _LONGEST:
            return None
        path = plain[2].decode()
        try:
            target = self._router.route(path, host)
        except RegistryError:
            return None
        return Asked(plain[1].decode(), path, target) if target.kind is Kind.MANIFEST else None


class _Known:
    """A target that is known, and the head of its last answer with what that was made from."""

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
