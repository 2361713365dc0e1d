"""Signed requests to siblings, and answers that are proven to be theirs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import aiohttp
from yarl import URL

from mirror.fleet import Coordinator, Sibling
from mirror.fleet.signature import CHAIN, PROOF, SIGNATURE, Question, Signature, is_proven, parse_chain
from mirror.observe.metrics import HubMetrics
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.source.sibling.standing import Standings
from mirror.source.upstream.failures import failure_of

_NEAR_SECONDS = 1.0
# A sibling of another region of which nothing is known yet may be on the other side of the world.
_FAR_SECONDS = 2.0
_LONGEST_SECONDS = 4.0
_ROUND_TRIPS = 4
# What a door takes to ask its hub about a fill that is only just beginning.
_ANSWER_SECONDS = 2.0
_READ_BUFFER = 256 * 2**10
_MOST_HEADERS = 100
_ANY = Digest.of(b"")


class SiblingError(RegistryError):
    """A sibling gave no answer, or none that can be used."""

    def __init__(self, sibling: Sibling, what: str, failure: Failure) -> None:
        text = f"replica {sibling.label} of region {sibling.region} {what}"
        super().__init__(ErrorCode.UNAVAILABLE, text, failure=failure, retry_after=1)


class Reply(NamedTuple):
    """An open answer that is a sibling's own.

    `chain` names whom its bytes come from, nearest first, itself at the head; `is_growing`: it does not have them all.
    """

    answer: aiohttp.ClientResponse
    chain: tuple[str, ...]
    is_growing: bool


class SiblingClient:
    """Asks siblings on their data ports: directly, following nowhere, and with nobody's credentials."""

    def __init__(
        self, coordinator: Coordinator, secret: Callable[[], str], metrics: HubMetrics, epoch: Callable[[], int]
    ) -> None:
        """Ask in the name of `coordinator`'s replica; see `Siblings`."""
        self.standings = Standings(coordinator.region)
        self._coordinator = coordinator
        self._secret = secret
        self._epoch = epoch
        self._metrics = metrics
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def ask(
        self,
        sibling: Sibling,
        method: str,
        target: str,
        ranges: str = "",
        followers: Iterable[str] = (),
    ) -> Reply:
        """Return the answer, of any status, to a request for a path and query.

        Raises:
            SiblingError: none came in time, or not from that sibling; it is left alone for a while.
        """
        try:
            return await self.reach(sibling, Question(method, target, ranges), followers)
        except SiblingError:
            self.failed(sibling.identity)
            raise

    async def reach(self, sibling: Sibling, question: Question, followers: Iterable[str] = ()) -> Reply:
        """Do as `ask`, with a failure held against nobody: a port may be just about to open.

        Raises:
            SiblingError: as for `ask`.
        """
        began = time.monotonic()
        reply = await self._exchange(sibling, question, followers)
        if not reply.is_growing and reply.answer.status != 503:
            # Else it may have waited for others.
            self.standings.of(sibling.identity).answered(time.monotonic() - began)
        return reply

    async def ask_hub(self, sibling: Sibling, digest: Digest, hold_seconds: float) -> int:
        """Return what status a sibling's hub answers with to whether it has a digest, and holds it for so long.

        Raises:
            SiblingError: as for `ask`.
        """
        target = f"/v2/blobs/{digest}?hold={max(0, round(hold_seconds))}"
        reply = await self.reach(sibling, Question("HEAD", target, ""))
        reply.answer.release()
        return reply.answer.status

    async def lives(self, sibling: Sibling) -> bool:
        """Say whether a sibling's hub answers."""
        try:
            await self.ask_hub(sibling, _ANY, 0)
        except SiblingError:
            return False
        return True

    def failed(self, identity: str) -> None:
        """Leave a sibling alone for a while: it failed, or what it sent was wrong."""
        self.standings.of(identity).failed(time.monotonic())

    def worked(self, identity: str) -> None:
        """Note that a sibling did what it was asked for."""
        self.standings.of(identity).worked()

    def lacks(self, sibling: Sibling, digest: Digest) -> None:
        """Note that a sibling does not have a digest, whatever was known of it."""
        self._coordinator.misses(sibling.identity, digest)

    def received(self, sibling: Sibling, amount: int) -> None:
        """Count body bytes."""
        self._metrics.sibling_bytes.labels(sibling.region).inc(amount)

    async def _exchange(self, sibling: Sibling, question: Question, followers: Iterable[str]) -> Reply:
        secret, own = self._secret(), self._coordinator
        if not secret:
            raise SiblingError(sibling, "is not asked: this replica has no secret of its fleet", Failure.CREDENTIALS)
        asked_for = tuple(sorted(followers))
        unsigned = Signature(own.identity, sibling.identity, int(own.time * 1000), self._epoch(), asked_for)
        signature = unsigned.signed(question, secret)
        headers = {SIGNATURE: signature.header()}
        if question.ranges:
            headers["Range"] = question.ranges
        patience = self._patience(sibling)
        try:
            async with asyncio.timeout(patience + _ANSWER_SECONDS):
                answer = await self._connections().request(
                    question.method,
                    URL(sibling.url.rstrip("/") + question.target, encoded=True),
                    headers=headers,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=patience),
                )
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise SiblingError(sibling, "cannot be reached", failure_of(error)) from None
        chain = answer.headers.get(CHAIN)
        proof = answer.headers.get(PROOF, "")
        others = parse_chain(chain or "")
        if others is None or not is_proven(proof, signature, secret, chain):
            answer.close()
            what = f"is not who answers at {sibling.url}, or has another secret (status {answer.status})"
            raise SiblingError(sibling, what, Failure.SERVER)
        return Reply(answer, (sibling.identity, *others), chain is not None)

    def _patience(self, sibling: Sibling) -> float:
        """Return in how many seconds a connection to a sibling has to come about."""
        if sibling.region == self._coordinator.region:
            return _NEAR_SECONDS
        latency = self.standings.of(sibling.identity).latency
        if math.isinf(latency):
            return _FAR_SECONDS
        return min(_NEAR_SECONDS + _ROUND_TRIPS * latency, _LONGEST_SECONDS)

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                requote_redirect_url=False,
                read_bufsize=_READ_BUFFER,
                headers={"User-Agent": "layover", "Accept-Encoding": "identity"},
                trust_env=False,
                max_headers=_MOST_HEADERS,
            )
        return self._session
