"""Registries of clouds, to a mirror that has nothing but what its cloud lends it."""

from __future__ import annotations

import base64
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from mirror.oci.digest import Digest
from tests.conformance.wire import Door
from tests.profiles.place import assert_discreet
from tests.replica import Replica
from tests.source.credentials.cloud import Cloud
from tests.upstream import Image, Upstream
from tests.upstream.profiles import PROFILES, Profile

_BY_NAME = {profile.name: profile for profile in PROFILES}
# What users write in front of an image → how the registry behaves, and who lends.
_REGISTRIES = {
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com": ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "ecr"),
    "public.ecr.aws": ("public.ecr.aws", "ecr"),
    "gcr.io": ("gcr.io", "google"),
    "team.azurecr.io": ("team.azurecr.io by a refresh token", "azure"),
}
_METADATA = "/computeMetadata/v1/instance/service-accounts/default"
_FOREIGN = ("AWS_", "AZURE_", "GOOGLE_", "IDENTITY_", "MSI_", "CLOUDSDK_")


@dataclass(frozen=True)
class Sky:
    """The registries, what lends the mirror its credentials, and the replica."""

    upstreams: dict[str, Upstream]
    cloud: Cloud
    door: Door

    def pull(self, name: str, image: Image) -> None:
        """Pull an image, and check every byte."""
        paths = {f"manifests/{image.tag}": image.index.digest}
        paths |= {f"manifests/{manifest.digest}": manifest.digest for manifest in image.manifests}
        paths |= {f"blobs/{blob.digest}": blob.digest for blob in image.blobs}
        for path, digest in paths.items():
            answer = self.door.get(f"/v2/{image.repository}/{path}?ns={name}")
            assert answer.status == 200, (path, answer.body[:500])
            assert Digest.of(answer.body) == digest


def _profile(name: str) -> Profile:
    return _BY_NAME[_REGISTRIES[name][0]]


def _amazon(password: str) -> dict[str, Any]:
    token = base64.b64encode(f"AWS:{password}".encode()).decode()
    return {"authorizationToken": token, "expiresAt": time.time() + 12 * 3600}


def _answers() -> dict[str, tuple[int, Any]]:
    """Return what the clouds say, by path."""
    lent = {"access_token": "aad-access-token", "expires_on": str(int(time.time()) + 3600), "token_type": "Bearer"}
    google = {"access_token": _profile("gcr.io").password, "expires_in": 3600, "token_type": "Bearer"}
    password = _profile("public.ecr.aws").password
    return {
        "/ecr": (200, {"authorizationData": [_amazon(password)]}),
        "/public": (200, {"authorizationData": _amazon(password)}),
        "/identity": (200, {**lent, "resource": "x"}),
        "/": (200, {}),
        "/computeMetadata/v1/project/project-id": (200, "project"),
        _METADATA: (200, {"email": "default", "scopes": []}),
        f"{_METADATA}/token": (200, google),
    }


def _environment(cloud: Cloud, home: str) -> dict[str, str]:
    return {
        "HOME": home,
        "AWS_ENDPOINT_URL_ECR": f"{cloud.url}/ecr",
        "AWS_ENDPOINT_URL_ECR_PUBLIC": f"{cloud.url}/public",
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "hush",
        "AWS_EC2_METADATA_DISABLED": "true",
        "IDENTITY_ENDPOINT": f"{cloud.url}/identity",
        "IDENTITY_HEADER": "header",
        "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
        "GCE_METADATA_HOST": cloud.address,
        "GCE_METADATA_IP": cloud.address,
    }


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sky]:
    folder = tmp_path_factory.mktemp("clouds")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in list(os.environ):
            if name.startswith(_FOREIGN) or "proxy" in name.lower():
                patch.delenv(name)
        cloud = stack.enter_context(Cloud())
        cloud.answers.update(_answers())
        upstreams = {name: stack.enter_context(Upstream()) for name in _REGISTRIES}
        tables = {
            name: {"url": upstreams[name].url, "provider": provider, "private": "anyone"}
            for name, (_, provider) in _REGISTRIES.items()
        }
        settings = _environment(cloud, str(folder))
        replica = stack.enter_context(Replica(folder / "store", upstreams=tables, settings=settings))
        yield Sky(upstreams, cloud, Door(replica.port))
        assert_discreet(replica, "hush", *(_profile(name).password for name in _REGISTRIES))


@pytest.mark.parametrize("name", _REGISTRIES)
def test_pulls__with_what_the_cloud_lends(name: str, sky: Sky) -> None:
    upstream = sky.upstreams[name]
    _profile(name).turn(upstream)
    images = []
    for tag in ("1", "2"):
        upstream.dials.private.add(f"team/app{tag}")
        seed = zlib.crc32(f"{name} {tag}".encode())
        images.append(upstream.push_image(f"team/app{tag}", tag, layers=(2_000, 100_000), seed=seed))
    for image in images:
        sky.pull(name, image)
    others = {
        _profile(other).password for other, (_, provider) in _REGISTRIES.items() if provider != _REGISTRIES[name][1]
    }
    for secret in (*others, "hush"):
        assert upstream.counters.witnesses(secret) == set()
    upstream.expire_tokens()
    upstream.counters.clear()
    for image in images:
        sky.pull(name, image)
    assert upstream.counters.headers == []
