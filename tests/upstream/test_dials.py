"""Each way in which a registry misbehaves is a dial, and each dial is turned by a test that asks the mirror.

Tests of the server itself, those in this folder, do not count.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from tests.upstream import Dials
from tests.upstream.helpers import Behaviour

TESTS = Path(__file__).parents[1]
DIALS = sorted(field.name for field in dataclasses.fields(Dials))

# What registries do → the dials for it; `failures` stands for an error answer in the test's own words.
MISBEHAVIOUR = {
    "token answers: token, access_token, both, neither": ["token_fields"],
    "token answers: longer than 64 KiB, no JSON, text/plain": ["token_shape", "token_type"],
    "token answers: expires_in and issued_at absent, odd, past, future": ["token_expires_in", "token_issued_at"],
    "a fresh token is refused once": ["token_late"],
    "a token expires, with no challenge, or one that names a foreign realm": [
        "token_lifetime",
        "expired_challenge",
        "expired_realm",
    ],
    "a challenge in any spelling, or none": [
        "challenge",
        "challenge_scheme",
        "challenge_service",
        "challenge_quotes",
        "challenge_extra",
        "challenge_parameters",
        "challenge_realm",
        "realm_path",
    ],
    "a scope left out, opaque, malformed, or of a listing's own": [
        "challenge_scope",
        "challenge_scope_text",
        "token_strict_scope",
        "tags_scope",
    ],
    "Basic in text/plain, for what is private alone, with a password that rotates": [
        "auth",
        "basic_type",
        "basic_open",
        "users",
        "wrong_password",
    ],
    "logins that fail too often": ["login_limit", "login_ban_seconds"],
    "a token endpoint that denies, with errors in JSON": ["token_denied", "anonymous", "private", "private_status"],
    "POST refused with 400, 401, 404, 405; the exchange for a refresh token": ["token_post", "exchange"],
    "a token that opens nothing": ["token_empty_grant"],
    "redirects: every status, cross-origin, relative, several hops, without end, to private addresses, to http": [
        "redirect",
        "redirect_status",
        "redirect_relative",
        "redirect_hops",
        "redirect_to",
        "redirect_head",
        "redirect_manifests",
        "redirect_tags",
    ],
    "storage that minds Authorization and the raw query": ["cdn_strict", "cdn_authorization"],
    "signed URLs that expire, refuse HEAD, and name other hosts in turn": [
        "cdn_seconds",
        "cdn_uses",
        "cdn_head_status",
        "cdn_hosts",
    ],
    "ranges ignored, answered with others, refused": ["blob_ranges"],
    "blobs cut, stalled, slow, corrupt, longer or shorter, gzipped": [
        "blob_cut",
        "blob_cut_times",
        "blob_cut_reset",
        "blob_stall",
        "blob_stall_seconds",
        "blob_stall_times",
        "blob_rate",
        "blob_rate_total",
        "blob_crawl_times",
        "blob_corrupt",
        "blob_extra",
        "blob_resize",
        "blob_gzip",
        "blob_length",
        "blob_digests",
        "blob_type",
        "blob_digest_header",
    ],
    "HEAD of a manifest without digest, type or length, or refused": [
        "manifest_head_digest",
        "manifest_head_type",
        "manifest_head_length",
        "manifest_head_status",
        "manifest_checksum",
    ],
    "manifests that depend on Accept, or are not what they claim": [
        "manifest_accept",
        "manifest_corrupt",
        "manifest_wrong_digest",
        "manifest_get_digest",
        "manifest_type",
        "manifest_length",
    ],
    "404 in every shape": ["not_found_body", "not_found_code", "missing_repository", "failures"],
    "a quota that HEAD does not touch, for each caller; 429 long and short, in HTML, with and without Retry-After": [
        "manifest_quota",
        "manifest_quota_limit",
        "user_quotas",
        "limit_body",
        "limit_retry_after",
        "failures",
    ],
    "one manifest a second": ["manifest_rate", "manifest_burst"],
    "502, 503, 504 on tokens, manifests, blobs": ["failures"],
    "tags: links of every kind, cursors, too large pages, text/plain, null, digests": [
        "tags_link",
        "tags_page",
        "tags_max",
        "tags_type",
        "tags_null",
        "tags_digests",
    ],
    "referrers: served, missing, redirected, a login page, another type, without end; a tag that is the subject": [
        "referrers",
        "referrers_end",
        "referrers_type",
        "referrers_filter",
        "referrers_page",
        "referrers_loop",
        "dash_tags",
    ],
    "an open /v2/ while the host that it redirects to challenges": ["ping_open", "auth_origins"],
    "cookies": ["cookie"],
    "connections that are slow, silent, or end": [
        "latency",
        "black_hole",
        "black_hole_times",
        "hang_up",
        "hang_up_times",
    ],
    "answers without an end, swollen, or a byte at a time": [
        "endless",
        "gzip_bomb",
        "heavy_headers",
        "heavy_header_line",
        "drip_headers",
        "drip_body",
        "drip_seconds",
    ],
}


_ASSIGNED = re.compile(r"^\s*((?:[^=(\n]*?\s[-+|]?=\s)+)", re.MULTILINE)
_DIAL = re.compile(r"\bdials\.(\w+)")
_ADDED = re.compile(r"\bdials\.(\w+)\.(?:add|append|extend|update)\(")
_KEY = re.compile(r"""["'](\w+)["']: """)
_CALLED = re.compile(r"\.dial\(([^()]*)")
_ARGUMENT = re.compile(r"(\w+)=")


def _turned(text: str) -> Iterator[str]:
    """Yield the dials that a file turns: assigned to, added to, or named as a key or an argument of `dial`."""
    for target in _ASSIGNED.findall(text):
        yield from _DIAL.findall(target)
    yield from _ADDED.findall(text)
    yield from _KEY.findall(text)
    for arguments in _CALLED.findall(text):
        yield from _ARGUMENT.findall(arguments)


def _files() -> Iterator[Path]:
    """Yield the tests of the mirror, and what they share."""
    yield TESTS / "upstream" / "profiles.py"
    yield from (path for path in TESTS.rglob("*.py") if path.parent != TESTS / "upstream")


@pytest.fixture(scope="module")
def turned() -> set[str]:
    return {name for path in _files() for name in _turned(path.read_text())}


@pytest.mark.parametrize("name", DIALS)
def test_is_turned(name: str, turned: set[str]) -> None:
    assert name in turned


@pytest.mark.parametrize("behaviour", get_args(Behaviour))
def test_is_a_helper_s(behaviour: str) -> None:
    assert any(f'"{behaviour}"' in path.read_text() for path in (TESTS / "profiles").glob("test_*.py"))


@pytest.mark.parametrize(
    "text",
    [
        'upstream.dials.auth = "basic"',
        "dials.auth, dials.private = 1, 2",
        'dials.auth["x"] = 3',
        "dials.private = dials.auth = 1",
        "dials.auth -= 1",
        "dials.auth.add(1)",
        '{"auth": 1}',
        'upstream.dial(blob_cut=1, auth="basic")',
    ],
)
def test_finds_what_is_turned(text: str) -> None:
    assert "auth" in _turned(text)


@pytest.mark.parametrize("text", ['assert dials.auth == "x"', "f(dials.auth)", "x = dials.auth", '"auth"'])
def test_finds_no_more(text: str) -> None:
    assert "auth" not in _turned(text)


def test_every_dial__is_some_misbehaviour() -> None:
    named = [dial for dials in MISBEHAVIOUR.values() for dial in dials]
    assert sorted(set(named)) == DIALS
