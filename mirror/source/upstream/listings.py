"""Listings of an upstream: pages of tags, and referrers, asked for one at a time and kept as they came."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import aiohttp
import msgspec
import structlog
from aiohttp_client_cache.response import CachedResponse
from yarl import URL

from mirror.config import Upstream
from mirror.oci import media_types
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.client import UpstreamClient
from mirror.source.upstream.failures import RETRY_AFTER
from mirror.source.upstream.listing_cache import ListingCache, body_of, cached_response, made_at

LONGEST_LISTING = 8 * 2**20
# ECR answers 405 to more, and whoever gets fewer than asked for follows the Link.
_MOST_TAGS = 1000
_LONGEST_LINKS = 8192
_MOST_FOLLOWED = 10_000
# Kept with an answer, as its URL does not tell under which name an upstream is configured.
_OWNER = "Layover-Repository"
_NEXT = re.compile(r'<([^<>]*)>\s*;[^,<]*\brel\s*=\s*"?next"?(?=[\s;,]|$)', re.IGNORECASE)
_COUNT = re.compile(r"(^|&)n=0*([1-9][0-9]{3,})(?=&|$)")
# What an upstream says of a request that it does not like: not that it fails, nor that there is nothing.
_REFUSED = frozenset({400, 405, 406, 409, 410, 411, 412, 413, 414, 415, 416, 417, 422, 431, 501})


class Listed(NamedTuple):
    """What is listed: the tags of a repository, or what refers to `subject` in it; by a `query`, passed on as it is."""

    repository: Repository
    subject: Digest | None
    query: str

    @property
    def fingerprint(self) -> bytes:
        """A few bytes that stand for it where it is remembered, as queries may be long."""
        return hashlib.sha256(f"{self.repository} {self.subject} {self.query}".encode(errors="replace")).digest()


class Page(NamedTuple):
    """A page of a listing, as the upstream gave it at `checked_at`, in seconds since the epoch.

    `is_new`: it was asked for just now. `is_kept`: it can be had again without asking.
    """

    body: bytes
    media_type: str
    next_query: str | None
    filters_applied: str | None
    checked_at: float
    is_new: bool
    is_kept: bool


class UpstreamListings:
    """Asks for listings, and keeps the answers."""

    def __init__(self, client: UpstreamClient, cache: ListingCache) -> None:
        self._client = client
        self._cache = cache
        self._following: dict[bytes, bytes] = {}
        self._log = structlog.get_logger("layover.source")

    async def close(self) -> None:
        """Give the kept answers up."""
        await self._cache.close()

    async def kept(self, upstream: Upstream, listed: Listed) -> Page | None:
        """Return the page that was kept, however old it is."""
        ask = _ask(upstream, listed)
        answer = await self._cache.get_response(self._key(ask))
        return None if answer is None else _page(ask, answer, is_new=False, is_kept=True)

    async def forget(self, upstream: Upstream, listed: Listed) -> None:
        """Forget a page."""
        await self._cache.delete(self._key(_ask(upstream, listed)))

    async def forget_all(self, is_meant: Callable[[str], bool]) -> None:
        """Forget every page of some repositories."""
        await self._cache.forget(lambda answer: is_meant(answer.headers.get(_OWNER, "")))

    async def fetch(
        self,
        upstream: Upstream,
        listed: Listed,
        step: Callable[[int], None] = lambda _: None,
        *,
        is_quick: bool = False,
        is_probe: bool = False,
    ) -> Page:
        """Ask for a page and keep it; `step` is called whenever the request moved forward.

        Raises:
            RegistryError: the upstream does not know the repository, has no such listing, or failed.
        """
        ask = _ask(upstream, listed)._replace(step=step, is_quick=is_quick, is_probe=is_probe)
        asked_at = time.time()
        answer = await self._client.ask(ask)
        links, filters = answer.headers.getall("Link", []), answer.headers.get("OCI-Filters-Applied")
        if listed.subject is not None and answer.content_type != media_types.OCI_INDEX:
            # A login page, or whatever else clients do not take for a listing: they shall look for the tag instead.
            answer.close()
            raise _no_referrers(upstream)
        body = _checked(upstream, listed, await self._client.read(answer, ask, LONGEST_LISTING))
        following = self._further(upstream, listed, _next_query(links, ask.url, answer.url))
        headers = [(_OWNER.encode(), str(listed.repository).encode())]
        if following is not None:
            headers.append((b"Link", f'<?{following}>; rel="next"'.encode()))
        if filters is not None:
            headers.append((b"OCI-Filters-Applied", filters.encode(errors="replace")))
        passed_on = cached_response(str(ask.url), headers, body, asked_at)
        is_kept = await self._cache.keep(self._key(ask), passed_on)
        return _page(ask, passed_on, is_new=True, is_kept=is_kept)

    def _key(self, ask: Ask) -> str:
        return self._cache.create_key(ask.method, ask.url, headers=ask.headers, scope=_scope(ask.upstream))

    def _further(self, upstream: Upstream, listed: Listed, query: str | None) -> str | None:
        """Return the query of the next page, unless the pages lead in a circle."""
        here = listed.fingerprint
        self._following.pop(here, None)
        if query is None:
            return None
        following = listed._replace(query=query).fingerprint
        place: bytes | None = following
        for _ in range(_MOST_FOLLOWED):
            if place is None:
                self._following[here] = following
                while len(self._following) > _MOST_FOLLOWED:
                    del self._following[next(iter(self._following))]
                return query
            if place == here:
                break
            place = self._following.get(place)
        repository = str(listed.repository)
        self._log.warning("the pages of a listing lead in a circle", upstream=upstream.name, repository=repository)
        return None


def _ask(upstream: Upstream, listed: Listed) -> Ask:
    repository, subject, query = listed
    if subject is None:
        path, query = "tags/list", _COUNT.sub(_at_most, query)
        ask = Ask(upstream, repository, "tags", "GET", path, ErrorCode.NAME_UNKNOWN, meaning=_tags_meaning)
    else:
        path, accept = f"referrers/{subject}", {"Accept": media_types.OCI_INDEX}
        ask = Ask(upstream, repository, "referrers", "GET", path, ErrorCode.MANIFEST_UNKNOWN, accept)
        ask = ask._replace(meaning=_referrers_meaning)
    return ask._replace(path=f"{path}?{query}") if query else ask


def _at_most(count: re.Match[str]) -> str:
    return f"{count[1]}n={_MOST_TAGS}" if int(count[2][:9]) > _MOST_TAGS else count[0]


def _tags_meaning(ask: Ask, answer: aiohttp.ClientResponse) -> RegistryError | None:
    if answer.status not in _REFUSED:
        return None
    text = f"upstream {ask.upstream.name} refuses to list tags by {ask.url.raw_query_string!r} (status {answer.status})"
    return RegistryError(ErrorCode.NAME_INVALID, text)


def _referrers_meaning(ask: Ask, answer: aiohttp.ClientResponse) -> RegistryError | None:
    """Say that there is no such listing where clients shall look for the tag instead, as they would without a mirror.

    GHCR leads to a page that is not the registry's, and limits how often that is looked at.
    """
    is_elsewhere = answer.url.path.rpartition("/")[2] != ask.url.path.rpartition("/")[2]
    return _no_referrers(ask.upstream) if is_elsewhere or answer.status in _REFUSED else None


def _no_referrers(upstream: Upstream) -> RegistryError:
    return RegistryError(ErrorCode.MANIFEST_UNKNOWN, f"upstream {upstream.name} has no referrers listing")


class _Tags(msgspec.Struct):
    tags: msgspec.Raw = msgspec.Raw(b"[]")


class _Index(msgspec.Struct):
    manifests: msgspec.Raw


def _checked(upstream: Upstream, listed: Listed, body: bytes) -> bytes:
    """Return a listing's body as it came, but for a list of tags that is null: clients expect a list."""
    try:
        if listed.subject is not None:
            msgspec.json.decode(body, type=_Index)
        elif bytes(msgspec.json.decode(body, type=_Tags).tags) == b"null":
            return msgspec.json.encode({**msgspec.json.decode(body), "tags": []})
    except (msgspec.MsgspecError, ValueError, RecursionError):
        what = "list of tags" if listed.subject is None else "list of referrers"
        text = f"upstream {upstream.name} answered with something that is no {what}"
        raise RegistryError(ErrorCode.UNAVAILABLE, text, failure=Failure.SERVER, retry_after=RETRY_AFTER) from None
    return body


def _page(ask: Ask, answer: CachedResponse, *, is_new: bool, is_kept: bool) -> Page:
    media_type = media_types.JSON if ask.kind == "tags" else media_types.OCI_INDEX
    headers = answer.headers
    following = _next_query(headers.getall("Link", []), ask.url)
    filters = headers.get("OCI-Filters-Applied")
    return Page(body_of(answer), media_type, following, filters, made_at(answer), is_new, is_kept)


def _scope(upstream: Upstream) -> str:
    """Return a name for as whom the mirror asks: what one account may see is not kept for another."""
    return f"{upstream.provider} {upstream.docker_config} {upstream.username}"


def _next_query(links: Sequence[str], *urls: URL) -> str | None:
    """Return the raw query of the link to the next page (RFC 8288), if it stays where the answer came from.

    `urls` are where the listing was asked for, and where that led.
    """
    for match in _NEXT.finditer(", ".join(links)[:_LONGEST_LINKS]):
        try:
            target = urls[-1].join(URL(match[1], encoded=True))
            is_near = target.origin() in {url.origin() for url in urls}
        except ValueError:
            continue
        query = target.raw_query_string
        if is_near and query and query.isascii() and query.isprintable() and " " not in query:
            return query
    return None
