"""Names, tags and references, as the distribution specification spells them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.oci.digest import Digest
from mirror.oci.reference import MAX_NAME, Repository, Tag, is_name, parse_reference

NAME = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
TAG = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"
DIGEST = f"sha256:{'0' * 64}"


@settings(deadline=None)
@given(st.from_regex(NAME, fullmatch=True))
def test_knows__every_name_of_the_specification(name: str) -> None:
    assert is_name(name) == (len(name) <= MAX_NAME)


@pytest.mark.parametrize("name", ["a" * 255, "a/" * 127 + "a", "a.b__c---d/e_f", "0", "blobs/uploads/manifests"])
def test_knows__name(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "A",
        "a/B",
        "a..b",
        "a___b",
        "a._b",
        "-a",
        "a-",
        ".a",
        "a.",
        "_a",
        "../a",
        "a/../b",
        "a b",
        "a:b",
        "a@b",
        "a%2fb",
        "a\n",
        "a\x00",
        "ä",
        "a" * 256,
    ],
)
def test_refuses__what_is_no_name(name: str) -> None:
    assert not is_name(name)


@settings(deadline=None)
@given(st.from_regex(TAG, fullmatch=True))
def test_parses__every_tag_of_the_specification(text: str) -> None:
    found = parse_reference(text)
    assert found == text
    assert isinstance(found, Tag)


@pytest.mark.parametrize("text", ["", ".a", "-a", "a b", "a/b", "a\n", "ä", "a" * 129, "a@b", "a\x00"])
def test_refuses__what_is_no_tag(text: str) -> None:
    with pytest.raises(ValueError, match="is not a tag"):
        parse_reference(text)


def test_parses__digest() -> None:
    found = parse_reference(DIGEST)
    assert found == DIGEST
    assert isinstance(found, Digest)


@pytest.mark.parametrize("text", ["sha256:abc", ":", "latest:1", f"{DIGEST}:x"])
def test_says_digest__where_a_colon_made_it_look_like_one(text: str) -> None:
    with pytest.raises(ValueError, match="digest"):
        parse_reference(text)


@settings(deadline=None)
@given(st.text())
def test_parses_or_refuses_in_one_line__any_text(text: str) -> None:
    is_name(text)
    try:
        found = parse_reference(text)
    except ValueError as error:
        refusal = str(error)
    else:
        assert found == text
        return
    assert "\n" not in refusal
    assert len(refusal) < 1000


def test_spells_repository__as_its_users_do() -> None:
    assert str(Repository("docker.io", "library/alpine")) == "docker.io/library/alpine"
