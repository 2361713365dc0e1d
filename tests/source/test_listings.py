"""Listings: a page at a time, by the upstream's own query, and from nowhere else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.source.upstream import Listed
from tests import upstream as bed
from tests.source.conftest import APP, Source, asking
from tests.upstream import Upstream

SUBJECT = Digest.of(b"subject")
INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.fixture
def tagged(upstream: Upstream) -> Upstream:
    for number in range(5):
        upstream.push_manifest(APP.name, f"v{number}", b"{}", "text/plain")
    return upstream


@pytest.fixture
def referred(upstream: Upstream) -> Upstream:
    for name in ("one", "two"):
        subject = {"digest": SUBJECT, "size": 7, "mediaType": "text/plain"}
        document = {"schemaVersion": 2, "artifactType": f"text/{name}", "subject": subject}
        upstream.push_manifest(
            APP.name, "sha256:", json.dumps(document).encode(), "application/vnd.oci.image.manifest.v1+json"
        )
    return upstream


def tags(query: str = "") -> Listed:
    return Listed(APP, None, query)


def referrers(query: str = "") -> Listed:
    return Listed(APP, SUBJECT, query)


async def all_tags(source: Source, query: str) -> list[list[str]]:
    """Return every page of tags, as a client that follows the links gets them."""
    pages: list[list[str]] = []
    following: str | None = query
    while following is not None:
        assert len(pages) < 10
        page = await source.listings.fetch(source.upstream, tags(following))
        pages.append(json.loads(page.body)["tags"])
        following = page.next_query
    return pages


@asynccontextmanager
async def answering(body: bytes, media_type: str) -> AsyncIterator[Source]:
    """Open a client for an upstream that answers everything in one way."""

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(body=body, headers={"Content-Type": media_type})

    async with RawTestServer(answer) as server, asking(str(server.make_url("")).rstrip("/")) as source:
        yield source


async def refusal(source: Source, listed: Listed) -> RegistryError:
    with pytest.raises(RegistryError) as refused:
        await source.listings.fetch(source.upstream, listed)
    return refused.value


def asked(upstream: Upstream) -> list[str]:
    """Return the targets that were asked for."""
    return [each.path for each in upstream.counters.headers]


class TestTags:
    @pytest.mark.parametrize("link", ["relative", "absolute", "opaque"])
    async def test_come_in_pages__by_any_link_of_the_registry(
        self, link: Literal["relative", "absolute", "opaque"], tagged: Upstream, source: Source
    ) -> None:
        tagged.dials.tags_link = link
        assert await all_tags(source, "n=2") == [["v0", "v1"], ["v2", "v3"], ["v4"]]

    async def test_come_in_pages__redirected_to_another_host(self, tagged: Upstream, source: Source) -> None:
        tagged.dials.redirect_tags = True
        assert await all_tags(source, "n=2") == [["v0", "v1"], ["v2", "v3"], ["v4"]]

    async def test_come_in_pages__by_links_of_the_host_that_it_was_redirected_to(
        self, tagged: Upstream, source: Source
    ) -> None:
        tagged.dials.redirect_tags = True
        tagged.dials.tags_link = "foreign"
        assert await all_tags(source, "n=2") == [["v0", "v1"], ["v2", "v3"], ["v4"]]

    async def test_end__at_a_link_to_another_host(self, tagged: Upstream, source: Source) -> None:
        tagged.dials.tags_link = "foreign"
        assert await all_tags(source, "n=2") == [["v0", "v1"]]

    async def test_end__at_a_link_to_the_page_itself(self, tagged: Upstream, source: Source) -> None:
        tagged.dials.tags_link = "loop"
        assert await all_tags(source, "n=2") == [["v0", "v1"]]

    @pytest.mark.parametrize("length", [2, 3, 7])
    async def test_end__where_links_lead_in_a_circle(self, length: int, upstream: Upstream, source: Source) -> None:
        for place in range(length):
            link = f'</v2/{APP.name}/tags/list?page={(place + 1) % length}>; rel="next"'
            answer = bed.Failure(200, kind="tags", body="json", headers={"Link": link}, times=1)
            upstream.dials.failures.append(answer)
        upstream.dials.failures.append(bed.Failure(500, kind="tags"))
        seen, following = 0, "page=0"
        while True:
            page = await source.listings.fetch(source.upstream, tags(following))
            seen += 1
            if page.next_query is None:
                break
            following = page.next_query
        assert seen == length

    async def test_pass_a_cursor_on__byte_by_byte(self, tagged: Upstream, source: Source) -> None:
        query = "n=2&last=a/b%2Fc+d%20e~%7e%2b=&x=%E4&&y"
        await source.listings.fetch(source.upstream, tags(query))
        assert asked(tagged) == [f"/v2/{APP.name}/tags/list?{query}"]

    @pytest.mark.parametrize(
        ("query", "sent"),
        [
            ("n=1000", "n=1000"),
            ("n=1001", "n=1000"),
            ("n=00000000000000000000", "n=00000000000000000000"),
            ("n=99999999999999999999&last=a", "n=1000&last=a"),
            ("last=n=5000&n=05000", "last=n=5000&n=1000"),
            ("min=5000", "min=5000"),
        ],
    )
    async def test_are_asked_for__at_most_1000_at_once(
        self, query: str, sent: str, tagged: Upstream, source: Source
    ) -> None:
        tagged.dials.tags_max = 1000
        await source.listings.fetch(source.upstream, tags(query))
        assert asked(tagged) == [f"/v2/{APP.name}/tags/list?{sent}"]

    async def test_are_refused__as_the_registry_does(self, tagged: Upstream, source: Source) -> None:
        tagged.dials.tags_max = 10
        refused = await refusal(source, tags("n=11"))
        assert (refused.code, refused.failure) == (ErrorCode.NAME_INVALID, None)
        assert len(asked(tagged)) == 1

    async def test_are_a_list__where_there_are_none(self, upstream: Upstream, source: Source) -> None:
        upstream.push_random_blob(APP.name, 1)
        upstream.dials.tags_null = True
        page = await source.listings.fetch(source.upstream, tags())
        assert json.loads(page.body) == {"name": APP.name, "tags": []}

    async def test_are_passed_on__digests_among_them(self, tagged: Upstream, source: Source) -> None:
        tagged.dials.tags_digests = True
        assert await all_tags(source, "") == [[str(Digest.of(b"{}")), "v0", "v1", "v2", "v3", "v4"]]

    async def test_are_json__whatever_type_they_are_sent_as(self, tagged: Upstream, source: Source) -> None:
        tagged.dials.tags_type = "text/plain"
        page = await source.listings.fetch(source.upstream, tags())
        assert page.media_type == "application/json"

    @pytest.mark.parametrize("body", ["html", "plain", "empty"])
    async def test_are_an_error__where_something_else_comes(
        self, body: Literal["html", "plain", "empty"], upstream: Upstream, source: Source
    ) -> None:
        upstream.dials.failures.append(bed.Failure(200, kind="tags", body=body))
        refused = await refusal(source, tags())
        assert "no list of tags" in refused.message
        assert refused.failure is Failure.SERVER
        assert await source.listings.kept(source.upstream, tags()) is None

    async def test_are_unknown__of_a_repository_that_is(self, source: Source) -> None:
        refused = await refusal(source, tags())
        assert (refused.code, refused.failure) == (ErrorCode.NAME_UNKNOWN, None)

    async def test_are_an_error__without_an_end(self, tagged: Upstream, source: Source) -> None:
        tagged.dials.endless = {"tags"}
        refused = await refusal(source, tags())
        assert refused.failure is Failure.SERVER
        assert "more than" in refused.message


class TestReferrers:
    async def test_come_as_they_were_sent__filtered_by_the_query(self, referred: Upstream, source: Source) -> None:
        page = await source.listings.fetch(source.upstream, referrers("artifactType=text%2Fone"))
        assert [each["artifactType"] for each in json.loads(page.body)["manifests"]] == ["text/one"]
        assert page.filters_applied == "artifactType"
        assert page.media_type == INDEX
        assert asked(referred)[-1].endswith("?artifactType=text%2Fone")

    async def test_come_in_pages(self, referred: Upstream, source: Source) -> None:
        referred.dials.referrers_page = 1
        first = await source.listings.fetch(source.upstream, referrers())
        assert first.next_query
        second = await source.listings.fetch(source.upstream, referrers(first.next_query))
        found = [json.loads(page.body)["manifests"][0]["artifactType"] for page in (first, second)]
        assert sorted(found) == ["text/one", "text/two"]
        assert second.next_query is None

    async def test_end__at_a_link_to_the_page_itself(self, referred: Upstream, source: Source) -> None:
        referred.dials.referrers_loop = True
        page = await source.listings.fetch(source.upstream, referrers())
        assert page.next_query is None

    @pytest.mark.parametrize("shape", ["missing", "html", "redirected", "login"])
    async def test_are_a_404__of_an_upstream_that_has_none(
        self, shape: Literal["missing", "html", "redirected", "login"], referred: Upstream, source: Source
    ) -> None:
        referred.dials.referrers = shape
        refused = await refusal(source, referrers())
        assert (refused.code, refused.failure) == (ErrorCode.MANIFEST_UNKNOWN, None)
        assert len(asked(referred)) <= 2

    @pytest.mark.parametrize("media_type", ["application/json", "text/plain", "application/octet-stream"])
    async def test_are_a_404__of_a_type_that_no_client_takes(
        self, media_type: str, referred: Upstream, source: Source
    ) -> None:
        referred.dials.referrers_type = media_type
        refused = await refusal(source, referrers())
        assert (refused.code, refused.failure) == (ErrorCode.MANIFEST_UNKNOWN, None)

    @pytest.mark.parametrize("status", [400, 405, 406, 501])
    async def test_are_a_404__where_the_path_is_refused(self, status: int, referred: Upstream, source: Source) -> None:
        referred.dials.failures = [bed.Failure(status, kind="referrers")]
        refused = await refusal(source, referrers())
        assert (refused.code, refused.failure) == (ErrorCode.MANIFEST_UNKNOWN, None)
        assert len(asked(referred)) == 1

    @pytest.mark.parametrize(
        ("status", "failure"), [(429, Failure.TOO_MANY), (500, Failure.SERVER), (503, Failure.SERVER)]
    )
    async def test_keep_their_error__where_the_registry_fails(
        self, status: int, failure: Failure, referred: Upstream, source: Source
    ) -> None:
        referred.dials.failures = [bed.Failure(status, kind="referrers", retry_after="60")]
        assert (await refusal(source, referrers())).failure is failure

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"errors":[]}', b'{"manifests":[', b"[" * 10**6])
    async def test_are_an_error__where_the_body_is_no_index(self, body: bytes) -> None:
        async with answering(body, INDEX) as source:
            assert (await refusal(source, referrers())).failure is Failure.SERVER
            assert await source.listings.kept(source.upstream, referrers()) is None

    @pytest.mark.parametrize("media_type", [INDEX, f"{INDEX}; charset=utf-8"])
    async def test_come_byte_by_byte(self, media_type: str) -> None:
        body = b'{ "schemaVersion":2,\n\t"manifests" : [ ],"annotations":{"a":"\\u00e4"} }\n'
        async with answering(body, media_type) as source:
            for _ in range(2):
                page = await source.listings.fetch(source.upstream, referrers())
                assert (page.body, page.media_type) == (body, INDEX)


class TestLinks:
    """Link headers of any shape; the page `n=1` is asked for."""

    @pytest.mark.parametrize(
        ("link", "query"),
        [
            ('</v2/library/app/tags/list?n=1&last=a>; rel="next"', "n=1&last=a"),
            ("<?last=a>;rel=next", "last=a"),
            ('<list?last=a>; title="x"; rel="next"', "last=a"),
            ('</x?last=b>; rel="prev", </x?last=a>; REL="next"', "last=a"),
            ("</x?last=a%2Fb+c%20~>; rel=next", "last=a%2Fb+c%20~"),
            ('</x?last=a>; rel="nextish"', None),
            ('</x>; rel="next"', None),
            ('<//elsewhere.example/x?last=a>; rel="next"', None),
            ('<https://elsewhere.example/x?last=a>; rel="next"', None),
            ('<http://[::1/x?last=a>; rel="next"', None),
            ('</x?last=\N{SNOWMAN}>; rel="next"', None),
            ('</x?last=a b>; rel="next"', None),
            ("<" * 4000, None),
            ("<>;" * 1300, None),
        ],
    )
    async def test_lead_on__within_the_registry(
        self, link: str, query: str | None, tagged: Upstream, source: Source
    ) -> None:
        tagged.dials.failures = [bed.Failure(200, kind="tags", headers={"Link": link})]
        page = await source.listings.fetch(source.upstream, tags("n=1"))
        assert page.next_query == query
