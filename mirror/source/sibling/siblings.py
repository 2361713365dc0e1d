"""The siblings of a replica: what each may be asked for, and which to ask first."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Iterable
from urllib.parse import urlencode

import aiohttp

from mirror.fleet import Coordinator, Sibling
from mirror.observe.metrics import HubMetrics
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.manifest import media_type_of, verifies
from mirror.oci.reference import Repository
from mirror.source.pace import Pace
from mirror.source.sibling.blobs import SiblingBlobs
from mirror.source.sibling.client import Reply, SiblingClient, SiblingError
from mirror.source.upstream.body import read_at_most
from mirror.source.upstream.failures import failure_of
from mirror.source.upstream.manifests import LONGEST_MANIFEST

_MOST_STREAMS = 16
_MANIFEST_SECONDS = 5.0
_MEASURE_SECONDS = 30.0
_LOOK_SECONDS = 1.0


class Siblings:
    """Asks the other replicas of the fleet, and remembers how they did."""

    def __init__(
        self,
        coordinator: Coordinator,
        secret: Callable[[], str],
        metrics: HubMetrics,
        epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        """Ask in the name of `coordinator`'s replica, signing with what `secret` returns.

        `epoch` tells the number of the last purge that was carried out here: siblings that have yet to are no sources.
        """
        self._coordinator = coordinator
        self._client = SiblingClient(coordinator, secret, metrics, epoch)
        self._paces: dict[str, Pace] = {}
        self._measuring: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to measure how far siblings are."""
        self._measuring = asyncio.create_task(self._measure_for_ever())

    async def close(self) -> None:
        """Close every connection."""
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.wait({self._measuring})
        await self._client.close()

    def blobs(self, sibling: Sibling, followers: Collection[str] = ()) -> SiblingBlobs:
        """Return a sibling as a source of blobs.

        `followers` are the siblings that read from this replica what it is asked for: it is not to come from them. The
        collection may still change.
        """
        return SiblingBlobs(self._client, sibling, self._pace(sibling.identity), followers)

    async def manifest(self, sibling: Sibling, repository: Repository, digest: Digest) -> tuple[str, bytes]:
        """Return a manifest's media type and bytes, verified.

        Raises:
            RegistryError: the sibling has none (MANIFEST_UNKNOWN, no failure), failed, or sent something else.
        """
        reply = await self._client.ask(sibling, "GET", f"/v2/{repository}/manifests/{digest}")
        answer = reply.answer
        if answer.status == 404:
            answer.release()
            self._client.lacks(sibling, digest)
            raise RegistryError(ErrorCode.MANIFEST_UNKNOWN, f"replica {sibling.label} does not have {digest}")
        body = await self._body(sibling, reply)
        if not verifies(body, digest):
            self.failed(sibling.identity)
            raise SiblingError(sibling, f"sent a manifest that does not have the digest {digest}", Failure.SERVER)
        self.worked(sibling.identity)
        return answer.headers.get("Content-Type") or media_type_of(body), body

    async def has(self, sibling: Sibling, digest: Digest, hold_seconds: float) -> bool:
        """Say whether a sibling has a digest, verified, and holds it against eviction for so many seconds.

        False where it cannot be asked, which is not held against it.
        """
        if self._client.standings.silent([sibling]):
            return False
        try:
            status = await self._client.ask_hub(sibling, digest, hold_seconds)
        except SiblingError:
            return False
        if status == 404:
            self._client.lacks(sibling, digest)
        return status == 200

    async def check(self, sibling: Sibling) -> bool:
        """Say whether the one that answers at a sibling's URL is that sibling, in the run that it told of.

        If not, that is held against nobody: its port may be just about to open.
        """
        try:
            return await self._client.call(sibling, "GET", f"/v2/?{urlencode({'boot': sibling.boot})}") == 200
        except SiblingError:
            return False

    def order(self, siblings: Iterable[Sibling]) -> list[Sibling]:
        """Return siblings by what they cost: the own region first, then by latency; without those left alone."""
        return self._client.standings.order(siblings, time.monotonic())

    def failed(self, identity: str) -> None:
        """Leave a sibling alone for a while: it failed, or what it sent was wrong."""
        self._client.failed(identity)

    def worked(self, identity: str) -> None:
        """Note that a sibling did what it was asked for."""
        self._client.worked(identity)

    async def _body(self, sibling: Sibling, reply: Reply) -> bytes:
        answer = reply.answer
        if answer.status != 200:
            answer.close()
            raise SiblingError(sibling, f"answered with status {answer.status}", Failure.SERVER)
        try:
            async with asyncio.timeout(_MANIFEST_SECONDS), answer:
                body = await self._client.heard(sibling, read_at_most(answer, LONGEST_MANIFEST))
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            self.failed(sibling.identity)
            raise SiblingError(sibling, "broke off", failure_of(error)) from None
        if body is None:
            self.failed(sibling.identity)
            raise SiblingError(sibling, f"sent more than {LONGEST_MANIFEST} bytes", Failure.SERVER)
        self._client.received(sibling, len(body))
        return body

    def _pace(self, identity: str) -> Pace:
        pace = self._paces.get(identity)
        if pace is None:
            pace = self._paces[identity] = Pace(_MOST_STREAMS, float("inf"), lambda: _MOST_STREAMS)
        return pace

    async def _measure_for_ever(self) -> None:
        """Ask now and then how far each sibling is, of those that are silent whether they are there again.

        Once one seems to fall silent all are asked: it may be the line to more of them.
        """
        alarm, due_at = self._client.alarm, 0.0
        while True:
            siblings = self._coordinator.siblings
            if siblings:
                self._client.standings.keep(siblings)
                self._paces = {identity: pace for identity, pace in self._paces.items() if identity in siblings}
            asked = self._client.standings.silent(siblings.values())
            if siblings and (alarm.is_set() or time.monotonic() >= due_at):
                asked, due_at = list(siblings.values()), time.monotonic() + _MEASURE_SECONDS
            alarm.clear()
            await asyncio.gather(*(self._client.lives(each) for each in asked))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await alarm.wait()
