"""Platforms: one form for what means the same, and which of those offered runs where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.oci.platform import Platform

SPELLINGS = {
    "linux/amd64": "linux/amd64",
    "linux/amd64/v1": "linux/amd64",
    "Linux/x86_64": "linux/amd64",
    "linux/amd64/v3": "linux/amd64/v3",
    "linux/arm64/v8": "linux/arm64",
    "linux/arm64/8": "linux/arm64",
    "linux/aarch64": "linux/arm64",
    "linux/arm64/v9": "linux/arm64/v9",
    "linux/arm": "linux/arm/v7",
    "linux/armhf": "linux/arm/v7",
    "linux/armel": "linux/arm/v6",
    "linux/i386": "linux/386",
    "windows/amd64": "windows/amd64",
    "windows(10.0.20348.2113)/amd64": "windows(10.0.20348)/amd64",
    "linux(5.4)/amd64": "linux/amd64",
}
NONSENSE = ["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "linux amd64", "a" * 200 + "/b", 1, None]

# What runs, what is offered, which one is best.
OLD, NEW = "windows(10.0.17763)/amd64", "windows(10.0.20348)/amd64"
CHOICES = [
    ("linux/amd64", ["linux/arm64", "linux/amd64"], "linux/amd64"),
    ("linux/amd64", ["linux/amd64/v2"], None),
    ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], "linux/amd64/v2"),
    ("linux/arm64", ["linux/arm/v7", "linux/arm64/v8"], "linux/arm64"),
    ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm64"], "linux/arm/v6"),
    ("linux/arm/v6", ["linux/arm/v7"], None),
    ("windows/amd64", [NEW, OLD], NEW),
    (OLD, [NEW, "windows(10.0.17763.1)/amd64"], OLD),
    (OLD, [NEW, "linux/amd64"], None),
    ("linux/amd64", [], None),
]


@pytest.mark.parametrize(("text", "usual"), SPELLINGS.items())
def test_parse__one_form_for_each(text: str, usual: str) -> None:
    assert Platform.parse(text) == usual
    assert Platform.parse(usual) == usual


@pytest.mark.parametrize("text", NONSENSE)
def test_parse__nonsense(text: object) -> None:
    with pytest.raises(ValueError, match="is not a platform: write os/architecture, such as linux/amd64"):
        Platform.parse(text)


@pytest.mark.parametrize(("runs", "offered", "best"), CHOICES)
def test_best__of_what_is_offered(runs: str, offered: list[str], best: str | None) -> None:
    assert Platform.parse(runs).best(map(Platform.parse, offered)) == best


def test_is_known__not_what_only_goes_along() -> None:
    assert Platform.of("linux", "amd64").is_known
    assert not Platform.of("unknown", "unknown").is_known
    assert not Platform.of("linux", "").is_known
    assert not Platform.of("", "").is_known


@given(st.lists(st.text(), min_size=4, max_size=4))
def test_of__takes_whatever_an_index_says(parts: list[str]) -> None:
    platform = Platform.of(*parts)
    assert platform.best([platform]) in {platform, None}
