"""WWW-Authenticate in every spelling that registries use."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.source.upstream.challenge import bearer, parse_challenges

REALM = "https://auth.example/token"


@pytest.mark.parametrize(
    ("header", "parameters"),
    [
        (f'Bearer realm="{REALM}"', {}),
        (
            f'Bearer realm="{REALM}",service="r",scope="repository:a/b:pull,push"',
            {"service": "r", "scope": "repository:a/b:pull,push"},
        ),
        (f'bEARER  Realm = "{REALM}" , SERVICE=r', {"service": "r"}),
        (f'Bearer service="a \\"quoted\\" word",realm="{REALM}"', {"service": 'a "quoted" word'}),
        (f'Basic realm="x", Bearer realm="{REALM}",service="r"', {"service": "r"}),
        (f'Negotiate, Bearer realm="{REALM}"', {}),
        (f'Negotiate dG9rZW4=, Bearer realm="{REALM}"', {}),
        (f'Bearer realm="{REALM}",error="invalid_token",', {"error": "invalid_token"}),
        (f'Bearer realm="{REALM}", realm="https://evil.example"', {}),
    ],
)
def test_finds_bearer(header: str, parameters: dict[str, str]) -> None:
    found = bearer([header])
    assert found is not None
    assert dict(found.parameters) == {"realm": REALM, **parameters}


def test_finds_bearer__in_any_of_several_headers() -> None:
    found = bearer(['Basic realm="x"', "Bearer", 'Bearer realm=""', f'Bearer realm="{REALM}"'])
    assert found is not None
    assert found.parameters["realm"] == REALM


@pytest.mark.parametrize(
    "headers", [[], [""], ["Basic realm=x"], ["Bearer"], ['Bearer service="r"'], ['realm="x"'], ['"']]
)
def test_finds_none__without_a_realm(headers: list[str]) -> None:
    assert bearer(headers) is None


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from('Bearer realm="\\,= \t:/x'), max_size=60) | st.text(), max_size=3))
def test_never_raises(headers: list[str]) -> None:
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()
    bearer(headers)
