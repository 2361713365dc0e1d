"""Listings of an upstream: pages of tags, and referrers."""

from __future__ import annotations

import re

import msgspec
from yarl import URL

from mirror.channel import Listing
from mirror.config import Upstream
from mirror.oci import media_types
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.client import UpstreamClient
from mirror.source.upstream.failures import RETRY_AFTER

LONGEST_LISTING = 16 * 2**20
_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel\s*=\s*"?next"?(?=[\s;,]|$)', re.IGNORECASE)


class UpstreamListings:
    """Asks for listings, a page at a time; the query is the upstream's own, kept as it is."""

    def __init__(self, client: UpstreamClient) -> None:
        self._client = client

    async def tags(self, upstream: Upstream, repository: Repository, query: str) -> Listing:
        """Return a page of tags.

        Raises:
            RegistryError: the upstream does not know the repository, or failed.
        """
        ask = Ask(upstream, repository, "tags", "GET", _path("tags/list", query), ErrorCode.NAME_UNKNOWN)
        page = await self._page(ask, media_types.JSON)
        if page.body.lstrip()[:1] != b"{":
            raise _failed(upstream, "answered with something that is no list of tags")
        return msgspec.structs.replace(page, body=_without_null(page.body))

    async def referrers(self, upstream: Upstream, repository: Repository, digest: Digest, query: str) -> Listing:
        """Return a page of referrers.

        Raises:
            RegistryError: the upstream has no such listing, or failed.
        """
        path = _path(f"referrers/{digest}", query)
        accept = {"Accept": media_types.OCI_INDEX}
        ask = Ask(upstream, repository, "referrers", "GET", path, ErrorCode.MANIFEST_UNKNOWN, accept)
        page = await self._page(ask, media_types.OCI_INDEX)
        if page.body.lstrip()[:1] != b"{":
            # A login page with status 200: the upstream has no referrers to ask for.
            raise RegistryError(ErrorCode.MANIFEST_UNKNOWN, f"upstream {upstream.name} has no referrers listing")
        return page

    async def _page(self, ask: Ask, media_type: str) -> Listing:
        answer = await self._client.ask(ask)
        links, filters = answer.headers.getall("Link", []), answer.headers.get("OCI-Filters-Applied")
        body = await self._client.read(answer, ask, LONGEST_LISTING)
        if answer.status != 200:
            raise _failed(ask.upstream, f"answered with status {answer.status}")
        return Listing(body, media_type, _next_query(ask, links), filters)


def _failed(upstream: Upstream, what: str) -> RegistryError:
    text = f"upstream {upstream.name} {what}"
    return RegistryError(ErrorCode.UNAVAILABLE, text, failure=Failure.SERVER, retry_after=RETRY_AFTER)


def _without_null(body: bytes) -> bytes:
    """Return a list of tags as it came, but for one that is null: clients expect a list."""
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body
    if isinstance(document, dict) and document.get("tags", ()) is None:
        return msgspec.json.encode({**document, "tags": []})
    return body


def _path(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path


def _next_query(ask: Ask, links: list[str]) -> str | None:
    """Return the raw query of the next page's link (RFC 8288), if it leads to the same listing of the same registry."""
    for match in _NEXT.finditer(", ".join(links)):
        try:
            target = ask.url.join(URL(match[1], encoded=True))
        except ValueError:
            continue
        if target.origin() == ask.url.origin() and target.raw_query_string:
            return target.raw_query_string
    return None
