"""Replicas that share a Redis, and what operators see of them."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.replica import NO_PREFETCH, Replica
from tests.upstream import Image, Upstream

SECRET = "of the whole fleet"


def member(
    folder: Path, name: str, redis_url: str, upstream: Upstream, settings: Mapping[str, str] | None = None
) -> Replica:
    """Return a replica of the fleet that shares a Redis; its store lies in `folder` under its name."""
    own = {
        **NO_PREFETCH,
        "LAYOVER_SERVER__WORKERS": "1",
        "LAYOVER_FLEET__REDIS_URL": redis_url,
        "LAYOVER_FLEET__SECRET": SECRET,
        "LAYOVER_FLEET__REPLICA": name,
        **(settings or {}),
    }
    return Replica(folder / name, upstreams={"docker.io": upstream.url}, settings=own)


def call(
    replica: Replica,
    method: str,
    path: str,
    body: object = None,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, dict[str, Any]]:
    """Ask the admin API, and return status and answer."""
    url = f"{replica.admin_url}/api/v1{path}?{urllib.parse.urlencode(query or {})}"
    data = None if body is None else json.dumps(body).encode()
    own = {"Content-Type": "application/json"} if data is not None else {}
    request = urllib.request.Request(url, data=data, method=method, headers={**own, **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def told(replica: Replica, method: str, path: str, body: object = None, **query: str) -> dict[str, Any]:
    """Return the answer to what has to succeed."""
    status, answer = call(replica, method, path, body, query)
    assert status == 200, (status, answer)
    return answer


def files(replica: Replica) -> set[str]:
    """Return the hex digests of what lies in the store, whole."""
    return {path.name for path in (replica.store / "content").glob("*/*/*")}


def hexes(image: Image) -> set[str]:
    """Return the hex digests of an image's manifests and blobs."""
    descriptors = [image.index, *(each.manifest for each in image.platforms), *image.blobs]
    return {each.digest.partition(":")[2] for each in descriptors}


def pins(replica: Replica) -> list[str]:
    """Return what is pinned."""
    return [each["what"] for each in told(replica, "GET", "/pins")["pins"]]
