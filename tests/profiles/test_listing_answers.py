"""Lists of tags and of referrers in every shape that registries give them."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest

from tests.conformance.wire import Door, assert_error
from tests.profiles.place import Place

_MOST_PAGES = 10
_IMAGE = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def tags(place: Place) -> list[str]:
    """Return the tags of a repository."""
    found = [f"v{number}" for number in range(5)]
    for tag in found:
        place.upstream.push_manifest(place.repository, tag, b'{"schemaVersion": 2}', _IMAGE)
    return found


def pages(place: Place, path: str, field: str) -> list[Any]:
    """Return what all pages hold, as a client reads them that follows each Link."""
    found: list[Any] = []
    answer = place.ask(path)
    for _ in range(_MOST_PAGES):
        assert answer.status == 200, answer.body
        found += answer.document[field]
        if "Link" not in answer.headers:
            return found
        target = answer.headers["Link"].partition("<")[2].partition(">")[0]
        assert target.startswith("/v2/")
        answer = Door(place.replica.port).get(target)
    raise AssertionError("the list has no end")


class TestTags:
    @pytest.mark.parametrize("link", ["relative", "absolute", "opaque"])
    @pytest.mark.parametrize("redirect_tags", [False, True])
    def test_come_whole__page_by_page(
        self, link: Literal["relative", "absolute", "opaque"], redirect_tags: bool, place: Place, tags: list[str]
    ) -> None:
        place.upstream.dials.tags_link, place.upstream.dials.redirect_tags = link, redirect_tags
        assert pages(place, "tags/list?n=2", "tags") == tags

    def test_end__where_a_link_leads_away(self, place: Place, tags: list[str]) -> None:
        place.upstream.dials.tags_link = "foreign"
        assert pages(place, "tags/list?n=2", "tags") == tags[:2]

    def test_end__where_a_link_leads_in_a_circle(self, place: Place, tags: list[str]) -> None:
        place.upstream.dials.tags_link = "loop"
        assert pages(place, "tags/list?n=2", "tags") == tags[:2]
        assert place.upstream.counters.requests(kind="tags") == 1

    def test_are_cut__to_the_registry_s_own_pages(self, place: Place, tags: list[str]) -> None:
        place.upstream.dials.tags_page = 2
        assert pages(place, "tags/list", "tags") == tags

    def test_may_be_asked_for_in_too_large_pages(self, place: Place, tags: list[str]) -> None:
        place.upstream.dials.tags_max = 1000
        for number in (1000, 1001):
            assert pages(place, f"tags/list?n={number}", "tags") == tags

    def test_may_be_digests(self, place: Place, tags: list[str]) -> None:
        place.upstream.dials.tags_digests = True
        found = pages(place, "tags/list", "tags")
        assert [tag for tag in found if ":" not in tag] == tags

    def test_may_be_none__and_said_to_be_null(self, place: Place) -> None:
        place.upstream.push_random_blob(place.repository, 10)
        place.upstream.dials.tags_null, place.upstream.dials.tags_type = True, "text/plain"
        answer = place.ask("tags/list")
        assert answer.headers["Content-Type"].partition(";")[0] == "application/json"
        assert answer.document["tags"] == []

    def test_may_lead_to_the_subject__by_the_name_of_its_signature(self, place: Place) -> None:
        place.upstream.dials.dash_tags = True
        image = place.push()
        place.fetch(f"manifests/{image.index.digest.replace(':', '-')}", image.index.digest)


class TestReferrers:
    @pytest.fixture
    def subject(self, place: Place) -> str:
        """Return the digest of a manifest with two referrers."""
        image = place.push()
        for name in ("one", "two"):
            document = {"schemaVersion": 2, "artifactType": f"text/{name}", "subject": image.index.document}
            place.upstream.push_manifest(place.repository, name, json.dumps(document).encode(), _IMAGE)
        return image.index.digest

    @pytest.mark.parametrize("referrers_type", ["application/json", "text/plain", "application/octet-stream"])
    def test_are_missing__where_they_come_as_something_else(
        self, referrers_type: str, place: Place, subject: str
    ) -> None:
        place.upstream.dials.referrers_type = referrers_type
        assert_error(place.ask(f"referrers/{subject}"), 404, "MANIFEST_UNKNOWN")

    def test_come_whole__page_by_page(self, place: Place, subject: str) -> None:
        place.upstream.dials.referrers_page = 1
        assert len(pages(place, f"referrers/{subject}", "manifests")) == 2

    def test_end__where_a_link_leads_in_a_circle(self, place: Place, subject: str) -> None:
        place.upstream.dials.referrers_loop = True
        assert len(pages(place, f"referrers/{subject}", "manifests")) == 2
        assert place.upstream.counters.requests(kind="referrers") == 1

    @pytest.mark.parametrize("filtered", [True, False])
    def test_say__whether_they_are_filtered(self, filtered: bool, place: Place, subject: str) -> None:
        place.upstream.dials.referrers_filter = filtered
        answer = place.ask(f"referrers/{subject}?artifactType=text%2Fone")
        assert answer.headers.get("OCI-Filters-Applied") == ("artifactType" if filtered else None)
        assert len(answer.document["manifests"]) == (1 if filtered else 2)

    @pytest.mark.parametrize(
        ("referrers", "end"),
        [("missing", 404), ("html", 404), ("login", 404), ("redirected", 404), ("redirected", 429)],
    )
    def test_are_missing__of_a_registry_that_has_no_such_list(
        self, referrers: Literal["missing", "html", "login", "redirected"], end: int, place: Place, subject: str
    ) -> None:
        place.upstream.dials.referrers, place.upstream.dials.referrers_end = referrers, end
        assert_error(place.ask(f"referrers/{subject}"), 404, "MANIFEST_UNKNOWN", "NAME_UNKNOWN")
