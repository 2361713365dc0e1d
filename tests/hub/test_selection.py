"""What operators may name, and what they mean by it."""

from __future__ import annotations

import pytest

from mirror.config import Upstreams
from mirror.hub.selection import SelectionError, select
from mirror.oci.digest import Digest

UPSTREAMS = Upstreams()
DIGEST = Digest.of(b"x")
APP = "docker.io/library/app"


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("app", f"{APP}:latest"),
        ("app:1", f"{APP}:1"),
        ("library/app:1", f"{APP}:1"),
        ("docker.io/app:1", f"{APP}:1"),
        ("index.docker.io/library/app:1", f"{APP}:1"),
        ("org/app:1", "docker.io/org/app:1"),
        ("ghcr.io/org/app", "ghcr.io/org/app:latest"),
        ("gone.example.com/org/app:1", "gone.example.com/org/app:1"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        (f"app@{DIGEST}", f"{APP}@{DIGEST}"),
        (f"app:1@{DIGEST}", f"{APP}@{DIGEST}"),
        (str(DIGEST), str(DIGEST)),
        ("app:*", f"{APP}:*"),
        ("org/*", "docker.io/org/*"),
        ("docker.io/app*", f"{APP}*"),
        ("docker.io/*", "docker.io/*"),
        ("ghcr.io/org/*:1", "ghcr.io/org/*:1"),
        ("*.azurecr.io/*", "*.azurecr.io/*"),
        ("*", "*"),
    ],
)
def test_selects__as_clients_write_images(text: str, full: str) -> None:
    assert select(text, UPSTREAMS).text == full
    assert select(full, UPSTREAMS).text == full


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "app 1",
        "App",
        "app:",
        "app:1:2",
        "app@sha256:12",
        "sha256:12",
        "a/../b",
        "app\n",
        "é",
        "x" * 1001,
        "/",
        "a//b",
    ],
)
def test_refuses__what_is_no_image_digest_or_glob(text: str) -> None:
    with pytest.raises(SelectionError, match="is no image, digest or glob"):
        select(text, UPSTREAMS)


@pytest.mark.parametrize(
    ("text", "repository", "tag", "is_meant"),
    [
        ("app", APP, "latest", True),
        ("app", APP, "1", False),
        ("app:*", APP, "1", True),
        ("app:*", f"{APP}2", "1", False),
        ("docker.io/*:1", APP, "1", True),
        ("docker.io/*:1", APP, "11", False),
        ("*", APP, "1", True),
        ("*app:*", APP, "1", True),
        (str(DIGEST), APP, "1", False),
    ],
)
def test_matches__tags(text: str, repository: str, tag: str, is_meant: bool) -> None:
    assert select(text, UPSTREAMS).has_tag(repository, tag) is is_meant


@pytest.mark.parametrize(
    ("text", "repository", "is_meant"),
    [
        (str(DIGEST), APP, True),
        (str(Digest.of(b"y")), APP, False),
        (f"app@{DIGEST}", APP, True),
        (f"app@{DIGEST}", "ghcr.io/library/app", False),
        ("docker.io/*", APP, True),
        ("app:*", APP, False),
        ("app", APP, False),
    ],
)
def test_matches__digests(text: str, repository: str, is_meant: bool) -> None:
    assert select(text, UPSTREAMS).has_digest(repository, DIGEST) is is_meant


@pytest.mark.parametrize(
    ("text", "repository", "is_possible"),
    [
        ("app:1", APP, True),
        ("app:1", f"{APP}2", False),
        ("docker.io/*:1", APP, True),
        ("docker.io/*:1", "ghcr.io/app", False),
        ("*:1", APP, True),
        ("app*", APP, True),
        ("app:1*", APP, True),
        ("app:1*", f"{APP}s", False),
        ("**", APP, True),
        (str(DIGEST), APP, True),
    ],
)
def test_tells__in_which_repositories_to_look(text: str, repository: str, is_possible: bool) -> None:
    assert select(text, UPSTREAMS).may_have(repository) is is_possible
