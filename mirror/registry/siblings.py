"""Requests of siblings: known by their signature, answered from what is here, and with a proof of who answers."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from aiohttp import web
from multidict import MultiMapping
from yarl import URL

from mirror.channel import Membership
from mirror.fleet.signature import CHAIN, PROOF, SIGNATURE, Question, Refusal, Signature, parse, prove
from mirror.observe.cache_status import Outcome
from mirror.oci import media_types
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.oci.reference import Repository
from mirror.pull import Sharing
from mirror.registry import responses
from mirror.registry.handlers import Answer, Handlers, RangeNotSatisfiable

_LONGEST_HOLD = 600
_PATH = re.compile(r"/v2/(?:([^/]+)/(.+)/)?(blobs|manifests)/([^/]+)")
_TEXTS = {
    Refusal.ALONE: "this replica has no fleet",
    Refusal.MALFORMED: "the signature is malformed",
    Refusal.FORGED: "the signature does not verify",
    Refusal.REDIRECTED: "the signature is for another replica",
    Refusal.EXPIRED: "the signature is not of this time",
}


class RefusedSibling(RegistryError):
    """A request that claims to be a sibling's is none that this replica answers."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(ErrorCode.DENIED, _TEXTS[reason])
        self.reason = reason


class _Asked(NamedTuple):
    """A genuine request: who asks, as what this replica is known, and what it shares."""

    signature: Signature
    membership: Membership
    sharing: Sharing

    def headers(self, chain: tuple[str, ...] | None = None) -> dict[str, str]:
        """Return the headers of every answer; `chain` names whom a growing blob comes from."""
        text = None if chain is None else ",".join(chain)
        headers = {PROOF: prove(self.signature, self.membership.secret, text)}
        return headers if text is None else {**headers, CHAIN: text}


class SiblingHandlers:
    """Answers siblings, whatever the rules for clients say. Nothing is started for them, and no upstream asked."""

    def __init__(self, sharing: Sharing | None, handlers: Handlers) -> None:
        """Share what `sharing` has, sent as `handlers` do."""
        self._sharing = sharing
        self._handlers = handlers

    async def answer(self, request: web.BaseRequest) -> Answer:
        """Return the answer to a request that carries a signature.

        Raises:
            RefusedSibling: it is not genuine; nothing was looked at.
            ConnectionError: the sibling is gone.
        """
        asked = await self._verified(request)
        try:
            return await self._answer(request, asked)
        except RegistryError as error:
            headers = asked.headers()
            if isinstance(error, RangeNotSatisfiable):
                headers["Content-Range"] = f"bytes */{error.size}"
            return Answer(responses.error_response(error, None, headers), Outcome.ERROR, 0, refused=error.message)

    async def _verified(self, request: web.BaseRequest) -> _Asked:
        sharing = self._sharing
        membership = None if sharing is None else await sharing.membership()
        if sharing is None or membership is None or not membership.secret:
            raise RefusedSibling(Refusal.ALONE)
        signature = _signature(request.headers)
        if signature is None:
            raise RefusedSibling(Refusal.MALFORMED)
        question = Question(request.method, request.raw_path, request.headers.get("Range", ""))
        now = time.monotonic() + membership.clock
        reason = signature.refusal(question, membership.secret, membership.identity, now)
        if reason is not None:
            raise RefusedSibling(reason)
        return _Asked(signature, membership, sharing)

    async def _answer(self, request: web.BaseRequest, asked: _Asked) -> Answer:
        path, _, query = request.raw_path.partition("?")
        if path == "/v2/":
            return self._presence(asked, query)
        match = _PATH.fullmatch(path)
        if match is None:
            raise RegistryError(ErrorCode.NAME_UNKNOWN, f"{path[:256]!r} is nothing that siblings ask for")
        upstream, name, kind, text = match.groups()
        digest = _digest(text)
        if asked.signature.epoch > asked.membership.epoch:
            raise RegistryError(ErrorCode.UNAVAILABLE, "a purge has yet to be carried out here", retry_after=1)
        if kind == "blobs" and request.method == "HEAD":
            return await self._held(asked, digest, _hold_seconds(query))
        if upstream is None or request.method != "GET":
            raise RegistryError(ErrorCode.UNSUPPORTED, f"{request.method} {path[:256]!r} is nothing that siblings ask")
        repository = Repository(upstream, name)
        if kind == "manifests":
            return await self._manifest(asked, repository, digest)
        return await self._blob(request, asked, repository, digest)

    def _presence(self, asked: _Asked, query: str) -> Answer:
        """Answer whether this is the run of the replica that the sibling means."""
        if URL(f"?{query}", encoded=True).query.get("boot") != asked.membership.boot:
            raise RegistryError(ErrorCode.NAME_UNKNOWN, "this replica has started since")
        return Answer(web.Response(headers=asked.headers()), Outcome.HIT, 0)

    async def _held(self, asked: _Asked, digest: Digest, seconds: int) -> Answer:
        if not await asked.sharing.has(digest, seconds):
            raise RegistryError(ErrorCode.BLOB_UNKNOWN, f"{digest} is not here")
        return Answer(web.Response(headers=asked.headers()), Outcome.HIT, 0)

    async def _manifest(self, asked: _Asked, repository: Repository, digest: Digest) -> Answer:
        found = await asked.sharing.manifest(repository, digest)
        response = web.Response(body=found.body, headers={**asked.headers(), "Content-Type": found.media_type})
        return Answer(response, Outcome.HIT, len(found.body))

    async def _blob(self, request: web.BaseRequest, asked: _Asked, repository: Repository, digest: Digest) -> Answer:
        signature = asked.signature
        body, chain = await asked.sharing.blob(repository, digest, signature.sender, signature.followers)
        try:
            headers = {**asked.headers(chain), "Content-Type": media_types.OCTET_STREAM}
            return await self._handlers.send(request, headers, body, request.headers.get("Range"))
        finally:
            await body.close()


def _signature(headers: MultiMapping[str]) -> Signature | None:
    values = headers.getall(SIGNATURE)
    return parse(values[0]) if len(values) == 1 else None


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except ValueError as error:
        raise RegistryError(ErrorCode.DIGEST_INVALID, str(error)) from None


def _hold_seconds(query: str) -> int:
    text = URL(f"?{query}", encoded=True).query.get("hold", "0")
    return min(int(text[:9]), _LONGEST_HOLD) if text.isascii() and text.isdecimal() else 0
