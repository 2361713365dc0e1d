"""A name and a secret, and what may be shown of them."""

from __future__ import annotations

from mirror.config import Secret
from mirror.source.upstream.credentials import Credential

ONE = Credential("user", Secret("secret"))


def test_has_a_fingerprint__that_changes_with_name_and_secret_alone() -> None:
    assert Credential("user", Secret("secret"), is_token=True).fingerprint == ONE.fingerprint
    others = {("user", "secret2"), ("user2", "secret"), ("users", "ecret"), ("", "usersecret")}
    assert len({Credential(name, Secret(secret)).fingerprint for name, secret in others} | {ONE.fingerprint}) == 5


def test_has_a_fingerprint__that_is_the_same_everywhere() -> None:
    assert ONE.fingerprint == "c217c60ad83c"


def test_has_an_identity__the_account_s_where_that_is_known() -> None:
    assert ONE.identity == ONE.fingerprint
    lent = [Credential("user", Secret(each), account="ecr:one") for each in ("secret", "secret2")]
    assert len({each.identity for each in lent}) == 1
    assert len({lent[0].identity, ONE.identity, lent[0]._replace(account="ecr:two").identity}) == 3


def test_shows_no_secret__in_text_or_traceback() -> None:
    for text in (repr(ONE), str(ONE), f"{ONE}", f"{ONE!r}", repr(ONE.secret)):
        assert "secret" not in text.lower().replace("secret(...)", "")
    assert ONE.fingerprint in repr(ONE)
