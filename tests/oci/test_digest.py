"""A digest is one that was valid when it was made, and nothing else."""

from __future__ import annotations

import hashlib
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.oci.digest import Digest

LENGTHS = {"sha256": 64, "sha512": 128}
HEX = "0123456789abcdef"


@st.composite
def spelled(draw: st.DrawFn) -> str:
    algorithm = draw(st.sampled_from(sorted(LENGTHS)))
    return f"{algorithm}:{draw(st.text(HEX, min_size=LENGTHS[algorithm], max_size=LENGTHS[algorithm]))}"


@settings(deadline=None)
@given(spelled())
def test_parses__every_well_formed_digest(text: str) -> None:
    digest = Digest.parse(text)
    assert digest == text
    assert hash(digest) == hash(text)
    assert f"{digest.algorithm}:{digest.hex}" == text
    assert len(digest.hex) == LENGTHS[digest.algorithm]


@settings(deadline=None)
@given(spelled(), st.integers(0, 200), st.characters())
def test_refuses__one_character_too_many_anywhere(text: str, place: int, extra: str) -> None:
    with pytest.raises(ValueError, match="is not a sha256 or sha512 digest"):
        Digest.parse(text[:place] + extra + text[place:])


@settings(deadline=None)
@given(spelled(), st.data())
def test_refuses__one_character_that_is_no_lower_case_hex(text: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(7, len(text) - 1))
    other = data.draw(st.characters(exclude_characters=HEX))
    with pytest.raises(ValueError, match="is not a sha256 or sha512 digest"):
        Digest.parse(text[:place] + other + text[place + 1 :])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        f"sha256:{'a' * 63}",
        f"sha256:{'a' * 128}",
        f"sha512:{'a' * 64}",
        f"SHA256:{'a' * 64}",
        f"sha256-{'a' * 64}",
        f"sha384:{'a' * 96}",
        f"md5:{'a' * 32}",
        f"sha256:{'a' * 64}\n",
        f" sha256:{'a' * 64}",
        f"sha256:{'../' * 21}a",
        f"sha256:{'٣' * 64}",
    ],
)
def test_refuses__what_is_no_digest(text: str) -> None:
    with pytest.raises(ValueError, match="is not a sha256 or sha512 digest"):
        Digest.parse(text)


def test_refuses_in_few_words__however_long_the_text() -> None:
    with pytest.raises(ValueError, match="is not a sha256") as refused:
        Digest.parse("sha256:" + string.ascii_letters * 10_000)
    assert len(str(refused.value)) < 300


@settings(deadline=None)
@given(st.lists(st.binary(max_size=100)), st.sampled_from(sorted(LENGTHS)))
def test_matches__the_same_bytes_in_whatever_pieces(pieces: list[bytes], algorithm: str) -> None:
    whole = b"".join(pieces)
    digest = Digest.of(whole, algorithm)
    assert digest == f"{algorithm}:{hashlib.new(algorithm, whole).hexdigest()}"
    hasher = digest.hasher()
    for piece in pieces:
        hasher.update(piece)
    assert digest.matches(hasher)
    hasher.update(b"x")
    assert not digest.matches(hasher)
