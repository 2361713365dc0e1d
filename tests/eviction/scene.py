"""Replicas whose stores are too small for what is pulled, and what is seen of them from outside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.chaos.reader import Reader, get
from tests.replica import NO_PREFETCH, Replica
from tests.upstream import Upstream

KIB, MIB = 2**10, 2**20
REPOSITORY = "library/churn"


def replica(store: Path, upstream: Upstream, settings: Mapping[str, str]) -> Replica:
    """Return a replica in front of `upstream` that is asked for nothing but what is pulled."""
    return Replica(store, upstreams={"docker.io": upstream.url}, settings={**NO_PREFETCH, **settings})


def push(upstream: Upstream, number: int, size: int) -> str:
    """Push a blob that depends on its number, and return its digest."""
    return upstream.push_random_blob(REPOSITORY, size, number)


def pull(running: Replica, digest: str, headers: Mapping[str, str] | None = None) -> Reader:
    """Read a blob to its end."""
    return get(running.url, f"/v2/{REPOSITORY}/blobs/{digest}", headers)


def begin(running: Replica, digest: str) -> Reader:
    """Begin to read a blob."""
    return Reader(running.url, f"/v2/{REPOSITORY}/blobs/{digest}")


def is_held(store: Path, digest: str) -> bool:
    """Say whether a store holds a digest."""
    algorithm, _, name = digest.partition(":")
    return (store / "content" / algorithm / name[:2] / name).exists()


def taken(store: Path) -> int:
    """Return what content and partial files take on the disk, in bytes."""
    total = 0
    for folder in ("content", "partial"):
        for path in (store / folder).rglob("*"):
            try:
                total += path.stat().st_blocks * 512 if path.is_file() else 0
            except FileNotFoundError:
                continue
    return total


def evictions(store: Path) -> list[dict[str, Any]]:
    """Return the audit trail, oldest first."""
    lines = []
    for name in ("audit.1", "audit"):
        if (store / name).exists():
            lines += (store / name).read_text().splitlines()
    return [json.loads(line) for line in lines]
