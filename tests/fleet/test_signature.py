"""Signatures of siblings' requests: what is made is understood, and nothing else verifies."""

from __future__ import annotations

import string

from hypothesis import example, given
from hypothesis import strategies as st

from mirror.fleet.signature import Question, Refusal, Signature, is_proven, parse, parse_chain, prove

_SECRET = "secret"
_NOW = 1_000_000.0
_IDENTITIES = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=64)
_TEXTS = st.text(st.characters(exclude_characters="\r\n"), max_size=40)
_QUESTIONS = st.builds(Question, st.sampled_from(["GET", "HEAD"]), _TEXTS, _TEXTS)
_UNSIGNED = st.builds(
    Signature,
    _IDENTITIES,
    _IDENTITIES,
    st.integers(0, 10**15 - 1),
    st.integers(0, 10**15 - 1),
    st.lists(_IDENTITIES, max_size=4).map(tuple),
)


@given(_UNSIGNED, _QUESTIONS)
@example(Signature("a", "b", 0), Question("GET", "/\ud800", "\udcff"))
def test_parse__what_was_made__is_the_same_and_verifies(unsigned: Signature, question: Question) -> None:
    signature = unsigned.signed(question, _SECRET)
    assert parse(signature.header()) == signature
    assert signature.refusal(question, _SECRET, unsigned.receiver, unsigned.at / 1000) is None


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda data: data.decode(errors="surrogateescape")))
def test_parse__anything__is_understood_or_not_but_never_fails(text: str) -> None:
    found = parse(text)
    assert found is None or found.header().rpartition("=")[2] == found.mac
    parse_chain(text)


@given(_UNSIGNED, _QUESTIONS, st.data())
def test_refusal__a_character_of_the_header_changed__never_verifies(
    unsigned: Signature, question: Question, data: st.DataObject
) -> None:
    header = unsigned.signed(question, _SECRET).header()
    place = data.draw(st.integers(0, len(header) - 1))
    other = data.draw(st.sampled_from([each for each in string.printable if each != header[place]]))
    changed = parse(header[:place] + other + header[place + 1 :])
    if changed is not None and changed != unsigned.signed(question, _SECRET):
        assert changed.refusal(question, _SECRET, changed.receiver, unsigned.at / 1000) is Refusal.FORGED


@given(_UNSIGNED, _QUESTIONS, _QUESTIONS)
def test_refusal__another_question__is_forged(unsigned: Signature, question: Question, other: Question) -> None:
    signature = unsigned.signed(question, _SECRET)
    expected = None if question == other else Refusal.FORGED
    assert signature.refusal(other, _SECRET, unsigned.receiver, unsigned.at / 1000) is expected


@given(st.text(max_size=10), st.text(max_size=10))
def test_refusal__another_secret__is_forged(one: str, other: str) -> None:
    question = Question("GET", "/v2/", "")
    signature = Signature("a", "b", 0).signed(question, f"x{one}")
    assert (signature.refusal(question, f"x{other}", "b", 0) is None) == (one == other)


def test_refusal__forged_and_redirected_and_late__is_called_forged() -> None:
    """Whoever does not know the secret learns nothing about this replica."""
    question = Question("GET", "/v2/", "")
    signature = Signature("a", "c", 0).signed(question, "another")
    assert signature.refusal(question, _SECRET, "b", _NOW) is Refusal.FORGED
    genuine = Signature("a", "c", 0).signed(question, _SECRET)
    assert genuine.refusal(question, _SECRET, "b", _NOW) is Refusal.REDIRECTED
    assert genuine.refusal(question, _SECRET, "c", _NOW) is Refusal.EXPIRED
    assert genuine.refusal(question, _SECRET, "c", 30) is None
    assert genuine.refusal(question, _SECRET, "c", 30.001) is Refusal.EXPIRED
    assert genuine.refusal(question, _SECRET, "c", -30.001) is Refusal.EXPIRED


@given(_UNSIGNED, _QUESTIONS, st.text(max_size=80))
def test_prove__another_chain_or_proof__is_not_believed(unsigned: Signature, question: Question, text: str) -> None:
    signature = unsigned.signed(question, _SECRET)
    for chain in (None, "", "a,b"):
        proof = prove(signature, _SECRET, chain)
        assert is_proven(proof, signature, _SECRET, chain)
        assert not is_proven(proof, signature, "another", chain)
        assert not any(is_proven(proof, signature, _SECRET, other) for other in (None, "", "a,b") if other != chain)
        assert is_proven(text, signature, _SECRET, chain) == (text == proof)
