"""Listings: a page at a time, by the upstream's own query, and from nowhere else."""

from __future__ import annotations

import json
from typing import Literal

import pytest

from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from tests import upstream as bed
from tests.source.conftest import APP, Source
from tests.upstream import Upstream

SUBJECT = Digest.of(b"subject")


@pytest.fixture
def tagged(upstream: Upstream) -> Upstream:
    for number in range(5):
        upstream.push_manifest(APP.name, f"v{number}", b"{}", "text/plain")
    return upstream


async def all_tags(source: Source, query: str) -> list[list[str]]:
    """Return every page of tags, as a client that follows the links gets them."""
    pages: list[list[str]] = []
    following: str | None = query
    while following is not None:
        assert len(pages) < 10
        page = await source.listings.tags(source.upstream, APP, following)
        pages.append(json.loads(page.body)["tags"])
        following = page.next_query
    return pages


class TestTags:
    @pytest.mark.parametrize("link", ["relative", "absolute", "opaque"])
    async def test_come_in_pages__by_any_link_of_the_registry(
        self, link: Literal["relative", "absolute", "opaque"], tagged: Upstream, source: Source
    ) -> None:
        tagged.dials.tags_link = link
        assert await all_tags(source, "n=2") == [["v0", "v1"], ["v2", "v3"], ["v4"]]

    async def test_end__at_a_link_to_another_host(self, tagged: Upstream, source: Source) -> None:
        tagged.dials.tags_link = "foreign"
        assert await all_tags(source, "n=2") == [["v0", "v1"]]

    async def test_are_a_list__where_there_are_none(self, upstream: Upstream, source: Source) -> None:
        upstream.push_random_blob(APP.name, 1)
        upstream.dials.tags_null = True
        assert await all_tags(source, "") == [[]]

    async def test_are_json__whatever_type_they_are_sent_as(self, tagged: Upstream, source: Source) -> None:
        tagged.dials.tags_type = "text/plain"
        page = await source.listings.tags(source.upstream, APP, "")
        assert page.media_type == "application/json"

    @pytest.mark.parametrize("body", ["html", "plain", "empty"])
    async def test_are_an_error__where_something_else_comes(
        self, body: Literal["html", "plain", "empty"], upstream: Upstream, source: Source
    ) -> None:
        upstream.dials.failures.append(bed.Failure(200, kind="tags", body=body))
        with pytest.raises(RegistryError, match="no list of tags") as refused:
            await source.listings.tags(source.upstream, APP, "")
        assert refused.value.failure is Failure.SERVER

    async def test_are_unknown__of_a_repository_that_is(self, source: Source) -> None:
        with pytest.raises(RegistryError) as refused:
            await source.listings.tags(source.upstream, APP, "")
        assert (refused.value.code, refused.value.failure) == (ErrorCode.NAME_UNKNOWN, None)


class TestReferrers:
    @pytest.fixture
    def referred(self, upstream: Upstream) -> Upstream:
        for name in ("one", "two"):
            subject = {"digest": SUBJECT, "size": 7, "mediaType": "text/plain"}
            document = {"schemaVersion": 2, "artifactType": f"text/{name}", "subject": subject}
            upstream.push_manifest(
                APP.name, "sha256:", json.dumps(document).encode(), "application/vnd.oci.image.manifest.v1+json"
            )
        return upstream

    async def test_come_filtered__by_the_query(self, referred: Upstream, source: Source) -> None:
        page = await source.listings.referrers(source.upstream, APP, SUBJECT, "artifactType=text%2Fone")
        assert [each["artifactType"] for each in json.loads(page.body)["manifests"]] == ["text/one"]
        assert page.filters_applied == "artifactType"
        assert referred.counters.headers[-1].path.endswith("?artifactType=text%2Fone")

    async def test_come_in_pages(self, referred: Upstream, source: Source) -> None:
        referred.dials.referrers_page = 1
        first = await source.listings.referrers(source.upstream, APP, SUBJECT, "")
        assert first.next_query
        second = await source.listings.referrers(source.upstream, APP, SUBJECT, first.next_query)
        found = [json.loads(page.body)["manifests"][0]["artifactType"] for page in (first, second)]
        assert sorted(found) == ["text/one", "text/two"]
        assert second.next_query is None

    @pytest.mark.parametrize("shape", ["missing", "html"])
    async def test_are_a_404__of_an_upstream_that_has_none(
        self, shape: Literal["missing", "html"], referred: Upstream, source: Source
    ) -> None:
        referred.dials.referrers = shape
        with pytest.raises(RegistryError) as refused:
            await source.listings.referrers(source.upstream, APP, SUBJECT, "")
        assert (refused.value.status, refused.value.failure) == (404, None)

    async def test_keep_the_limit__behind_a_redirect(self, referred: Upstream, source: Source) -> None:
        referred.dials.referrers = "redirected"
        with pytest.raises(RegistryError) as refused:
            await source.listings.referrers(source.upstream, APP, SUBJECT, "")
        assert refused.value.code is ErrorCode.TOOMANYREQUESTS
