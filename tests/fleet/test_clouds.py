"""Replicas that a cloud lends passwords, to each its own."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path

import pytest

from tests.fleet.replicas import Replicas
from tests.fleet.servers import Valkey
from tests.hub.pulling import asked, digest, pull
from tests.replica import NO_PREFETCH
from tests.source.credentials.cloud import Cloud
from tests.upstream import Upstream

HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


def lend(cloud: Cloud, upstream: Upstream, password: str) -> None:
    """Have the cloud lend a password from now on, the only one that the registry takes."""
    token = base64.b64encode(f"AWS:{password}".encode()).decode()
    cloud.answers["/"] = (200, {"authorizationData": [{"authorizationToken": token, "expiresAt": time.time() + 3600}]})
    upstream.dials.users = {"AWS": password}


def test_pull__lent_another_password__asks_as_who_it_is(
    tmp_path: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_") or "proxy" in name.lower():
            monkeypatch.delenv(name)
    with Cloud() as cloud, Upstream() as upstream:
        settings = {
            **NO_PREFETCH,
            "HOME": str(tmp_path),
            "AWS_ENDPOINT_URL": cloud.url,
            "AWS_SECRET_ACCESS_KEY": "hush",
            "AWS_EC2_METADATA_DISABLED": "true",
            "LAYOVER_UPSTREAMS": json.dumps({HOST: {"url": upstream.url, "provider": "ecr", "private": "anyone"}}),
        }
        upstream.dials.auth = "basic"
        image = upstream.push_image("team/app", "1", layers=[1000], raw=True)
        replicas = Replicas(tmp_path, ("eu", "us", "us"), valkey.url, {}, settings=settings)
        try:
            # Two have the key of one user, the third has one of a role's session.
            for replica, key in zip(replicas.prepare(), ("AKIAEXAMPLE", "AKIAEXAMPLE", "ASIAEXAMPLE"), strict=True):
                replica._environment["AWS_ACCESS_KEY_ID"] = key
            replicas.start()
            for replica, password, asks in zip(replicas, ("one", "two", "three"), (True, False, True), strict=True):
                lend(cloud, upstream, password)
                upstream.counters.clear()
                assert digest(pull(replica, f"{HOST}/team/app:1")) == image.index.digest
                assert bool(asked(upstream, "team/app")) is asks
        finally:
            replicas.stop()
        assert len(cloud.requests) == len(list(replicas))
