"""WWW-Authenticate in every spelling that registries use."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.source.upstream.challenge import bearer, parse_challenges, usable

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


def test_prefers_bearer_to_basic() -> None:
    basic = 'Basic realm="x"'
    for headers, scheme in (([basic, f'Bearer realm="{REALM}"'], "bearer"), ([basic, "Negotiate"], "basic")):
        found = usable(headers)
        assert found is not None
        assert found.scheme == scheme
    assert usable(["Negotiate", "Bearer"]) is None


def test_names_scopes__as_they_are() -> None:
    (found,) = parse_challenges([f'Bearer realm="{REALM}",scope="aws  repository:a/b:pull",error="insufficient_scope"'])
    assert found.scopes == ("aws", "repository:a/b:pull")
    assert found.is_insufficient
    assert found.without_scope().scopes == ()
    assert found.without_scope().parameters["realm"] == REALM


@pytest.mark.parametrize("piece", [" ", "\t", ",", "=", "a", "a ", "a=", 'a="', "\\", " ,", "a  =", '"'])
def test_takes_no_time__whatever_is_repeated(piece: str) -> None:
    # Whoever tries a line in every possible way is busy with these for many minutes.
    lines = [f'Bearer realm="{REALM}"{(piece * 8000)[:8000]}{end}' for end in ("", "x", ",", '"', "\x01") * 20]
    for line in lines:
        assert parse_challenges([line])[0].scheme == "bearer"


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from('Bearer realm="\\,= \t:/x'), max_size=60) | st.text(), max_size=3))
def test_never_raises(headers: list[str]) -> None:
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()
    bearer(headers)
