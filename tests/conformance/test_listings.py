"""Tags, referrers and the catalogue."""

from __future__ import annotations

import json
import re
from typing import Any, Literal
from urllib.parse import urljoin, urlsplit

import pytest

from tests.chaos.scene import eventually
from tests.conformance.forms import COUNTED, UPSTREAM, Form, forms
from tests.conformance.wire import Answer, Door, assert_error, assert_plain
from tests.replica import Replica
from tests.upstream import Image, Upstream

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
TAGS = ["1.0", "1.10", "1.9", "Latest", "_x", "latest", "v2"]
FORMS = {"none": Form(), **forms(UPSTREAM)}


@pytest.fixture
def tagged(upstream: Upstream, repository: str) -> str:
    """Return a repository with `TAGS`, pushed in another order."""
    for number, tag in enumerate(reversed(TAGS)):
        upstream.push_manifest(repository, tag, json.dumps({"schemaVersion": 2, "n": number}).encode(), MANIFEST)
    return repository


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    return FORMS[request.param]


def pages(door: Door, form: Form, target: str) -> list[Answer]:
    """Return every page of a listing, by its Links, as a client in this form would follow them."""
    answers = []
    for _ in range(100):
        answer = door.get(target, form.headers)
        assert answer.status == 200, answer.body[:500]
        assert_plain(answer)
        answers.append(answer)
        if "Link" not in answer.headers:
            return answers
        match = re.fullmatch(r'<([^>]+)>; ?rel="?next"?', answer.headers["Link"])
        assert match is not None, answer.headers["Link"]
        assert not urlsplit(match[1]).netloc, "a Link must not lead a client away from the mirror"
        target = urljoin(target, match[1])
    raise AssertionError("the listing does not end")


def tags_of(answers: list[Answer]) -> list[str]:
    """Return the tags of all pages."""
    return [tag for answer in answers for tag in answer.document["tags"]]


def test_lists_every_tag__in_order(door: Door, form: Form, tagged: str) -> None:
    answer = form.get(door, f"{tagged}/tags/list")
    assert answer.status == 200
    assert_plain(answer)
    assert answer.headers["Content-Type"] == "application/json"
    assert "Link" not in answer.headers
    assert set(answer.document) == {"name", "tags"}
    assert answer.document["name"].endswith(tagged)
    assert answer.document["tags"] == TAGS


@pytest.mark.parametrize("size", [1, 3, 7])
def test_lists_tags_by_pages__in_the_form_it_was_asked(door: Door, form: Form, tagged: str, size: int) -> None:
    answers = pages(door, form, form.target(f"{tagged}/tags/list?n={size}"))
    assert tags_of(answers) == TAGS
    assert all(len(answer.document["tags"]) <= size for answer in answers)
    assert len(answers) <= len(TAGS) // size + 1


@pytest.mark.parametrize(("last", "expected"), [("1.9", TAGS[3:]), ("1.5", TAGS[2:]), ("v2", []), ("0", TAGS)])
def test_lists_tags_after_last__with_and_without_n(door: Door, tagged: str, last: str, expected: list[str]) -> None:
    assert door.get(f"/v2/{tagged}/tags/list?last={last}").document["tags"] == expected
    assert door.get(f"/v2/{tagged}/tags/list?n=2&last={last}").document["tags"] == expected[:2]


def test_lists_no_tag__n_is_0(door: Door, tagged: str) -> None:
    answer = door.get(f"/v2/{tagged}/tags/list?n=0")
    assert (answer.status, answer.document["tags"]) == (200, [])
    assert "Link" not in answer.headers


@pytest.mark.parametrize("size", ["x", "-1", "1.5", "%20"])
def test_refuses_a_listing__n_is_no_number(door: Door, tagged: str, size: str) -> None:
    answer = door.get(f"/v2/{tagged}/tags/list?n={size}")
    assert answer.status == 400
    assert answer.document["errors"]


@pytest.mark.parametrize("link", ["relative", "absolute", "opaque"])
def test_lists_every_tag__upstream_gives_short_pages(
    door: Door, upstream: Upstream, tagged: str, link: Literal["relative", "absolute", "opaque"]
) -> None:
    upstream.dials.tags_page = 2
    upstream.dials.tags_link = link
    for target in (f"/v2/{tagged}/tags/list", f"/v2/{tagged}/tags/list?n=3"):
        assert tags_of(pages(door, Form(), target)) == TAGS


@pytest.mark.parametrize("null", [False, True])
def test_lists_no_tag__repository_has_none(door: Door, upstream: Upstream, repository: str, null: bool) -> None:
    upstream.dials.tags_null = null
    upstream.push_blob(repository, b"untagged")
    assert door.get(f"/v2/{repository}/tags/list").document["tags"] == []


@pytest.mark.parametrize("size", [1001, 5000, 10**20])
def test_lists_every_tag__upstream_gives_1000_at_most(door: Door, upstream: Upstream, tagged: str, size: int) -> None:
    upstream.dials.tags_max = 1000
    assert tags_of(pages(door, Form(), f"/v2/{tagged}/tags/list?n={size}")) == TAGS


def test_passes_a_cursor_on__as_it_came(door: Door, upstream: Upstream, form: Form, tagged: str) -> None:
    query = "n=2&last=a/b%2Fc+d%20e~%7e%2b=&&y"
    assert form.get(door, f"{tagged}/tags/list?{query}").status == 200
    assert [each.path for each in upstream.counters.headers] == [f"/v2/{tagged}/tags/list?{query}"]


def test_ends__links_lead_in_a_circle(door: Door, upstream: Upstream, form: Form, tagged: str) -> None:
    upstream.dials.tags_page = 2
    upstream.dials.tags_link = "loop"
    assert len(pages(door, form, form.target(f"{tagged}/tags/list"))) == 1


def test_links_to_itself__slashes_before_the_path(door: Door, tagged: str) -> None:
    answer = door.get(f"//docker.io/v2/{tagged}/tags/list?n=1")
    assert answer.status == 200
    assert answer.headers["Link"].startswith("</docker.io/v2/")


@pytest.mark.parametrize("query", ["last=\u00e4", "artifactType=\u2603", "\x7f"])
def test_refuses_a_listing__query_is_not_ascii(door: Door, upstream: Upstream, tagged: str, query: str) -> None:
    digest = f"sha256:{'1' * 64}"
    for target in (f"/v2/{tagged}/tags/list?{query}", f"/v2/{tagged}/referrers/{digest}?{query}"):
        answer = door.send(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert answer.status == 400
    assert upstream.counters.headers == []


def test_says_how_it_came__the_same_page_for_every_form(
    door: Door, replica: Replica, upstream: Upstream, tagged: str
) -> None:
    for number, form in enumerate(forms(COUNTED).values()):
        answer = form.get(door, f"{tagged}/tags/list?n=3")
        assert int(answer.headers["Age"]) < 60
        if number:
            ttl = re.fullmatch(r"layover; hit; ttl=(\d+)", answer.headers["Cache-Status"])
            assert ttl is not None
            assert int(ttl[1]) + int(answer.headers["Age"]) in (299, 300)
        else:
            assert answer.headers["Cache-Status"] == "layover; fwd=miss; stored"
        assert answer.document["tags"] == TAGS[:3]
    assert upstream.counters.requests(kind="tags") == 1
    eventually(lambda: listed(replica, "hit") == number, "every door has told what it counted")
    assert listed(replica, "miss") == 1


def listed(replica: Replica, outcome: str) -> float:
    """Return how many listings of tags had an outcome."""
    return replica.metric("layover_requests_total", kind="tags", outcome=outcome, upstream=COUNTED)


def test_answers_head__as_get_without_the_body(door: Door, tagged: str, referred: tuple[str, str]) -> None:
    for target in (f"/v2/{tagged}/tags/list?n=3", "/v2/{}/referrers/{}".format(*referred)):
        got, head = door.get(target), door.head(target)
        assert (head.status, head.body) == (200, b"")
        for name in ("Content-Length", "Content-Type", "Link"):
            assert head.headers[name] == got.headers[name]


def test_passes_on_404__no_such_repository(door: Door, upstream: Upstream, repository: str) -> None:
    assert_error(door.get(f"/v2/{repository}/tags/list"), 404, "NAME_UNKNOWN")


@pytest.fixture
def referred(upstream: Upstream, repository: str) -> tuple[str, str]:
    """Return a repository and a digest in it with three referrers of two artifact types."""
    subject = {"mediaType": MANIFEST, "size": 19, "digest": f"sha256:{'1' * 64}"}
    for kind, number in (("example/sbom", 1), ("example/signature", 2), ("example/sbom", 3)):
        body = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "subject": subject, "n": number}
        upstream.push_manifest(repository, "sha256:", json.dumps(body).encode(), MANIFEST)
    return repository, str(subject["digest"])


def referrers_of(answers: list[Answer]) -> list[dict[str, Any]]:
    """Return the descriptors of all pages, each of which must be an OCI index."""
    for answer in answers:
        assert answer.headers["Content-Type"] == INDEX
        assert answer.document["schemaVersion"] == 2
        assert answer.document["mediaType"] == INDEX
    return [descriptor for answer in answers for descriptor in answer.document["manifests"]]


def test_lists_referrers__every_one(door: Door, form: Form, referred: tuple[str, str]) -> None:
    repository, digest = referred
    for spelled in (digest, digest.replace(":", "%3A")):
        found = referrers_of(pages(door, form, form.target(f"{repository}/referrers/{spelled}")))
        assert sorted(descriptor["artifactType"] for descriptor in found) == [
            "example/sbom",
            "example/sbom",
            "example/signature",
        ]


def test_lists_referrers__of_one_type(door: Door, form: Form, referred: tuple[str, str]) -> None:
    repository, digest = referred
    answers = pages(door, form, form.target(f"{repository}/referrers/{digest}?artifactType=example/sbom"))
    assert [descriptor["artifactType"] for descriptor in referrers_of(answers)] == ["example/sbom"] * 2
    assert all(answer.headers["OCI-Filters-Applied"] == "artifactType" for answer in answers)


def test_claims_no_filter__that_was_not_applied(door: Door, upstream: Upstream, referred: tuple[str, str]) -> None:
    upstream.dials.referrers_filter = False
    repository, digest = referred
    answers = pages(door, Form(), f"/v2/{repository}/referrers/{digest}?artifactType=example/sbom")
    filtered = all("OCI-Filters-Applied" in answer.headers for answer in answers)
    assert len(referrers_of(answers)) == (2 if filtered else 3)


def test_lists_referrers__upstream_gives_short_pages(
    door: Door, upstream: Upstream, form: Form, referred: tuple[str, str]
) -> None:
    upstream.dials.referrers_page = 1
    repository, digest = referred
    assert len(referrers_of(pages(door, form, form.target(f"{repository}/referrers/{digest}")))) == 3


@pytest.mark.parametrize("digest", [f"sha256:{'2' * 64}", f"sha512:{'2' * 128}"])
def test_lists_no_referrer__subject_has_none(door: Door, image: Image, digest: str) -> None:
    assert referrers_of(pages(door, Form(), f"/v2/{image.repository}/referrers/{digest}")) == []


@pytest.mark.parametrize(
    "digest", ["sha256:bad", f"sha256:{'A' * 64}", "latest", "md5:d41d8cd98f00b204e9800998ecf8427e"]
)
def test_refuses_referrers__of_a_malformed_digest(door: Door, upstream: Upstream, repository: str, digest: str) -> None:
    assert_error(door.get(f"/v2/{repository}/referrers/{digest}"), 400, "DIGEST_INVALID")
    assert upstream.counters.headers == []


@pytest.mark.parametrize("kind", ["missing", "html", "redirected", "login"])
def test_invents_no_referrers__upstream_has_no_such_listing(
    door: Door, upstream: Upstream, referred: tuple[str, str], kind: Literal["missing", "html", "redirected", "login"]
) -> None:
    """Clients look for the tag `sha256-<hex>` after a 404, and not all of them after anything else."""
    upstream.dials.referrers = kind
    repository, digest = referred
    assert_error(door.get(f"/v2/{repository}/referrers/{digest}"), 404, "MANIFEST_UNKNOWN", "UNKNOWN")


def test_invents_no_referrers__upstream_sends_another_type(
    door: Door, upstream: Upstream, referred: tuple[str, str]
) -> None:
    upstream.dials.referrers_type = "application/json"
    repository, digest = referred
    assert_error(door.get(f"/v2/{repository}/referrers/{digest}"), 404, "MANIFEST_UNKNOWN")


def test_lists_names_in_the_catalogue__as_they_are_pulled_by_name(
    door: Door, upstream: Upstream, pushed: Image
) -> None:
    door.pull(pushed)
    upstream.push_image(f"team/{pushed.repository}", "1.0", layers=(100,))
    assert door.get(f"/v2/{UPSTREAM}/team/{pushed.repository}/manifests/1.0").status == 200
    upstream.counters.clear()
    answers = pages(door, Form(), "/v2/_catalog")
    names = [name for answer in answers for name in answer.document["repositories"]]
    assert f"docker.io/{pushed.repository}" in names
    assert f"{UPSTREAM}/team/{pushed.repository}" in names
    assert names == sorted(set(names))
    assert door.get(f"/v2/docker.io/{pushed.repository}/manifests/{pushed.tag}").status == 200
    assert upstream.counters.headers == []


def test_lists_the_catalogue_by_pages(door: Door, pushed: Image) -> None:
    door.pull(pushed)
    whole = door.get("/v2/_catalog?n=10000").document["repositories"]
    size = len(whole) // 3 + 1
    listed = [answer.document["repositories"] for answer in pages(door, Form(), f"/v2/_catalog?n={size}")]
    assert [name for page in listed for name in page] == whole
    assert all(len(page) <= size for page in listed)
    assert door.get(f"/v2/_catalog?last={whole[0]}").document["repositories"] == whole[1:]
    empty = door.get("/v2/_catalog?n=0")
    assert empty.document["repositories"] == []
    assert "Link" not in empty.headers
