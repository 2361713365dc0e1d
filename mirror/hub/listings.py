"""Listings: pages of tags and referrers, fresh for as long as a tag is, and what is kept while the upstream fails."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import structlog

from mirror.channel import Listing
from mirror.config import FreshnessSettings, Upstream
from mirror.hub.lookout import Lookout
from mirror.hub.negatives import Negatives
from mirror.hub.patience import Patience
from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source.upstream import Listed, Page, UpstreamListings

_LONGEST_TTL = 2**31
_MOST_TOLD = 10_000


class Listings:
    """Answers for listings. Of those who ask the same at once, one asks the upstream."""

    def __init__(
        self, source: UpstreamListings, settings: FreshnessSettings, identity: Callable[[Upstream], Awaitable[str]]
    ) -> None:
        """Ask `source`; `identity` tells as whom, as a text that changes with the account."""
        self._source = source
        self._settings = settings
        self._identity = identity
        self._negatives = Negatives(settings.negative_ttl)
        self._lookout: Lookout[Listed, Page] = Lookout(self._check, identity, settings.revalidate_timeout)
        self._told: set[bytes] = set()
        self._log = structlog.get_logger("layover.hub")

    async def close(self) -> None:
        """End every request under way, and give what is kept up."""
        await self._lookout.close()
        await self._source.close()

    async def forget(self, is_meant: Callable[[str], bool]) -> None:
        """Forget what is kept and remembered of some repositories."""
        self._negatives.forget(is_meant)
        self._lookout.leave(is_meant)
        await self._source.forget_all(is_meant)

    async def find(self, upstream: Upstream, listed: Listed) -> Listing:
        """Return a page of a listing.

        Raises:
            RegistryError: it is not kept, and the upstream has none or failed; or the upstream says it is gone.
        """
        page = await self._source.kept(upstream, listed)
        now = time.time()
        if page is not None and now < page.checked_at + self._settings.tag_ttl:
            return self._listing(page, Outcome.HIT)
        if page is None or now >= page.checked_at + self._settings.tag_ttl + self._settings.stale_if_error:
            return await self._missing(upstream, listed)
        return await self._fresh_or_stale(upstream, listed, page)

    async def _missing(self, upstream: Upstream, listed: Listed) -> Listing:
        identity = await self._identity(upstream)
        self._negatives.check(listed.repository, listed.fingerprint, identity)
        flight, joined = self._lookout.bring(listed.repository, listed, lambda: self._bring(upstream, listed))
        try:
            page = await flight
        except RegistryError as error:
            self._negatives.note(listed.repository, listed.fingerprint, identity, error)
            raise
        return self._listing(page, _outcome(page, joined=joined))

    async def _fresh_or_stale(self, upstream: Upstream, listed: Listed, page: Page) -> Listing:
        """Ask again, for as long as the answer seems to come; else return what is kept, marked stale."""
        failure = self._lookout.met(upstream, listed.repository, listed)
        if failure is None:
            try:
                found, joined = await self._lookout.ask(upstream, listed.repository, listed)
                return self._listing(found, _outcome(found, joined=joined))
            except RegistryError as error:
                if error.failure is None:
                    raise
                failure = error.failure
        if listed.fingerprint not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(listed.fingerprint)
            self._log.warning("a listing is served stale", repository=str(listed.repository), why=failure)
        return self._listing(page, Outcome.STALE, failure)

    async def _bring(self, upstream: Upstream, listed: Listed) -> Page:
        """Ask for a page that is not kept, unless another flight just brought it."""
        page = await self._source.kept(upstream, listed)
        if page is not None and time.time() < page.checked_at + self._settings.tag_ttl:
            return page
        return await self._source.fetch(upstream, listed)

    async def _check(
        self, upstream: Upstream, repository: Repository, name: Listed, patience: Patience, is_probe: bool
    ) -> Page:
        """Ask again for a page that is kept."""
        try:
            page = await self._source.fetch(upstream, name, patience.step, is_quick=True, is_probe=is_probe)
        except RegistryError as error:
            if error.code is ErrorCode.DENIED and upstream.has_credentials:
                # It may be the mirror's own credentials that are denied.
                error.failure = Failure.CREDENTIALS
            if error.failure is not None:
                await self._lookout.failed(upstream, repository, name, error)
            else:
                self._lookout.answered(upstream, repository)
                identity = await self._identity(upstream)
                self._negatives.note(repository, name.fingerprint, identity, error)
                await self._source.forget(upstream, name)
            raise
        self._lookout.answered(upstream, repository)
        self._told.discard(name.fingerprint)
        return page

    def _listing(self, page: Page, outcome: Outcome, failure: Failure | None = None) -> Listing:
        age = max(0.0, time.time() - page.checked_at)
        left = max(-_LONGEST_TTL, min(self._settings.tag_ttl - age, _LONGEST_TTL))
        ttl = min(int(left), -1) if outcome is Outcome.STALE else max(int(left), 0)
        status = CacheStatus(outcome, ttl=ttl, age=int(age), failure=failure, is_stored=page.is_kept)
        return Listing(page.body, page.media_type, status, page.next_query, page.filters_applied)


def _outcome(page: Page, *, joined: bool) -> Outcome:
    if not page.is_new:
        return Outcome.HIT
    return Outcome.JOINED if joined else Outcome.MISS
