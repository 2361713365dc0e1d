"""Signed requests to siblings, and answers that are proven to be theirs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NamedTuple, TypeVar

import aiohttp
from yarl import URL

from mirror.fleet import Coordinator, Sibling, done_within
from mirror.fleet.signature import CHAIN, PROOF, SIGNATURE, Question, Signature, is_proven, parse_chain
from mirror.observe.metrics import HubMetrics
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.source.sibling.standing import Standings
from mirror.source.upstream.failures import failure_of

_NEAR_SECONDS = 1.0
# A sibling of another region of which nothing is known yet may be on the other side of the world.
_FAR_LATENCY = 0.25
_LONGEST_LATENCY = 0.75
_ROUND_TRIPS = 4
# What a door takes to ask its hub about a fill that is only just beginning.
_ANSWER_SECONDS = 2.0
# A sign of life takes nothing but the way, and what a busy machine needs.
_SIGN_SECONDS = 1.5
_READ_BUFFER = 256 * 2**10
_MOST_HEADERS = 100
_ANY = Digest.of(b"")
_Result = TypeVar("_Result")

SILENT_SECONDS = 0.5
"""After how much silence a sibling is asked for a sign of life."""


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
        """Ask in the name of `coordinator`'s replica; see `Siblings`. `alarm` is set when one seems to be silent."""
        self.standings = Standings(coordinator.region)
        self.alarm = asyncio.Event()
        self._coordinator = coordinator
        self._secret = secret
        self._epoch = epoch
        self._metrics = metrics
        self._session: aiohttp.ClientSession | None = None
        self._calls: dict[tuple[str, str], asyncio.Task[int]] = {}

    async def close(self) -> None:
        """Close every connection."""
        for call in tuple(self._calls.values()):
            call.cancel()
        await asyncio.gather(*self._calls.values(), return_exceptions=True)
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
            return await self.heard(sibling, self._reach(sibling, Question(method, target, ranges), followers))
        except SiblingError:
            self.failed(sibling.identity)
            raise

    async def heard(self, sibling: Sibling, coming: Coroutine[Any, Any, _Result]) -> _Result:
        """Return what comes from a sibling, as long as it lives.

        Raises:
            SiblingError: it gives no sign of life.
        """
        waiting = asyncio.create_task(coming)
        try:
            while not await done_within(waiting, SILENT_SECONDS):
                if not await self.lives(sibling) and not waiting.done():
                    raise self.silent(sibling)
            return waiting.result()
        finally:
            waiting.cancel()

    async def call(self, sibling: Sibling, method: str, target: str) -> int:
        """Return what status a sibling answers with to what it answers at once.

        Nothing is held against one that refuses: its port may be just about to open. Whoever calls the same at the
        same time shares the answer.

        Raises:
            SiblingError: as for `ask`.
        """
        key = (sibling.identity, target)
        calling = self._calls.get(key)
        if calling is None:
            calling = self._calls[key] = asyncio.create_task(self._call(sibling, Question(method, target, "")))
            calling.add_done_callback(lambda _: self._calls.pop(key, None))
            calling.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(calling)

    async def ask_hub(self, sibling: Sibling, digest: Digest, hold_seconds: float) -> int:
        """Return what status a sibling's hub answers with to whether it has a digest, and holds it for so long.

        Raises:
            SiblingError: as for `ask`.
        """
        return await self.call(sibling, "HEAD", f"/v2/blobs/{digest}?hold={max(0, round(hold_seconds))}")

    async def lives(self, sibling: Sibling) -> bool:
        """Say whether a sibling's hub answers."""
        try:
            await self.ask_hub(sibling, _ANY, 0)
        except SiblingError:
            return False
        return True

    def silent(self, sibling: Sibling) -> SiblingError:
        """Leave a sibling alone until something comes from it, and return the error that says so."""
        standing = self.standings.of(sibling.identity)
        if not standing.is_silent:
            standing.is_silent = True
            self.alarm.set()
        return SiblingError(sibling, "gives no sign of life", Failure.TIMEOUT)

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

    async def _call(self, sibling: Sibling, question: Question) -> int:
        half = _SIGN_SECONDS / 2 + self._latency(sibling)
        asking = asyncio.create_task(self._reach(sibling, question, ()))
        try:
            if not await done_within(asking, half):
                if not self.standings.of(sibling.identity).is_silent:
                    self.alarm.set()
                if not await done_within(asking, half):
                    raise self.silent(sibling)
            answer = asking.result().answer
            answer.release()
            return answer.status
        finally:
            asking.cancel()

    async def _reach(self, sibling: Sibling, question: Question, followers: Iterable[str]) -> Reply:
        """Return the answer to a question, and note how the sibling does.

        Raises:
            SiblingError: none came in time, or not from that sibling.
        """
        began = time.monotonic()
        try:
            reply = await self._exchange(sibling, question, followers)
        except SiblingError as error:
            if error.failure is Failure.TIMEOUT:
                self.silent(sibling)
            raise
        standing = self.standings.of(sibling.identity)
        standing.is_silent = False
        if not reply.is_growing and reply.answer.status != 503:
            # Else it may have waited for others.
            standing.answered(time.monotonic() - began)
        return reply

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
        return _NEAR_SECONDS + _ROUND_TRIPS * self._latency(sibling)

    def _latency(self, sibling: Sibling) -> float:
        """Return how far a sibling is, in seconds, at most what it may be to be waited for."""
        latency = self.standings.of(sibling.identity).latency
        if math.isinf(latency):
            return 0.0 if sibling.region == self._coordinator.region else _FAR_LATENCY
        return min(latency, _LONGEST_LATENCY)

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
