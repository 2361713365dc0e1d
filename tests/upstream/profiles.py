"""The registries of the world, one profile each: the dials that make the server behave as it does, and who logs in."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tests.upstream.failures import Failure
from tests.upstream.server import Upstream

_LONG_SECRET = "eyJhbGciOiJSUzUxMiJ9." + "c2VjcmV0" * 100
_REFRESH_TOKEN = "eyJhbGciOiJSUzI1NiJ9." + "cmVmcmVz" * 100


@dataclass(frozen=True)
class Profile:
    """How one registry behaves. `name` is what users write in front of an image, or a description of it."""

    name: str
    dials: Mapping[str, object]
    username: str = ""
    password: str = ""
    addresses: Callable[[Upstream], Mapping[str, object]] = field(default=lambda _: MappingProxyType({}))
    """Dials that name the server's own addresses."""
    head_names_digest: bool = True

    @property
    def has_login(self) -> bool:
        """Return whether somebody can log in."""
        return bool(self.username)

    @property
    def has_public(self) -> bool:
        """Return whether nobody needs to log in for what is public."""
        if self.dials.get("auth") == "basic":
            return bool(self.dials.get("basic_open"))
        return bool(self.dials.get("anonymous", True))

    def turn(self, upstream: Upstream) -> None:
        """Put every dial of a server to where this registry has it."""
        upstream.reset()
        users = {self.username: self.password} if self.has_login else {}
        for name, value in {"users": users, **self.dials, **self.addresses(upstream)}.items():
            assert hasattr(upstream.dials, name), name
            # What counts down, or is added to, belongs to one server alone.
            setattr(upstream.dials, name, copy.deepcopy(value))


_DOCKER_HUB = Profile(
    "docker.io",
    {
        "auth": "bearer",
        "challenge_realm": "foreign",
        "challenge_service": "registry.docker.io",
        "token_fields": ("token", "access_token"),
        "token_expires_in": 300,
        "token_issued_at": "2026-11-21T09:00:00.123456789Z",
        "token_post": None,
        "missing_repository": 401,
        "manifest_quota": 10_000,
        "manifest_quota_limit": 10_000,
        "redirect": True,
        "redirect_status": 307,
        "cdn_hosts": ("127.0.0.1", "localhost"),
    },
    username="ann",
    password="dckr_pat_A1b2-C3d4_E5",
)
_GHCR = Profile(
    "ghcr.io",
    {
        "auth": "bearer",
        "challenge_service": "ghcr.io",
        "token_fields": ("token",),
        "token_expires_in": None,
        "token_denied": 403,
        "manifest_accept": "strict",
        "redirect": True,
        "referrers": "redirected",
        "referrers_end": 404,
        "tags_page": 100,
    },
    username="ann",
    password="ghp_16C7e42F292c6912E7710c838347Ae178B4a",
)
_QUAY = Profile(
    "quay.io",
    {
        "auth": "bearer",
        "realm_path": "/v2/auth",
        "challenge_service": "quay.io",
        "token_fields": ("token",),
        "token_expires_in": None,
        "token_lifetime": 3600.0,
        "token_strict_scope": True,
        "manifest_accept": "schema1",
        "manifest_rate": 50.0,
        "manifest_burst": 50,
        "limit_body": "html",
        "not_found_code": "TAG_EXPIRED",
        "redirect": True,
        "redirect_status": 302,
        "cdn_seconds": 600.0,
        "tags_page": 100,
        "tags_link": "absolute",
    },
    username="team+puller",
    password="ROBOT0TOKEN1WITH2DIGITS",
)
_ECR = Profile(
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
    {
        "auth": "basic",
        "basic_type": "text/plain; charset=utf-8",
        "wrong_password": 403,
        "manifest_head_digest": False,
        "redirect": True,
        "cdn_seconds": 3600.0,
        "tags_max": 1000,
        "tags_type": "text/plain; charset=utf-8",
    },
    username="AWS",
    password=_LONG_SECRET,
    head_names_digest=False,
)
_ECR_PUBLIC = Profile(
    "public.ecr.aws",
    {
        "auth": "bearer",
        "challenge_service": "public.ecr.aws",
        "challenge_scope_text": "aws",
        "token_fields": ("token",),
        "manifest_rate": 1.0,
        "manifest_burst": 100,
        "limit_body": "json",
        "tags_link": "opaque",
    },
    username="AWS",
    password=_LONG_SECRET,
)
_GOOGLE = Profile(
    "europe-docker.pkg.dev",
    {
        "auth": "bearer",
        "challenge_service": None,
        "challenge_quotes": False,
        "challenge_scheme": "bearer",
        "token_fields": ("token",),
        "token_expires_in": None,
        "token_post": 404,
        "expired_challenge": False,
        "private_status": 403,
        "manifest_accept": "strict",
        "redirect": True,
        "redirect_status": 302,
        "redirect_relative": True,
        "cdn_strict": False,
        "referrers": "login",
    },
    username="_json_key",
    password='{"type": "service_account", "private_key": "-----BEGIN PRIVATE KEY-----\\nMIIE+vQ/I=\\n"}',
)
_GCR = Profile(
    "gcr.io",
    {
        **_GOOGLE.dials,
        "challenge_service": "gcr.io",
        "challenge_quotes": True,
        "challenge_scheme": "Bearer",
        "challenge_parameters": r'error_description="see \"docs\"",',
    },
    username="oauth2accesstoken",
    password="ya29.a0AfB_byC-1234_xyz",
)
_KUBERNETES = Profile(
    "registry.k8s.io",
    {"redirect": True, "redirect_hops": 2, "redirect_manifests": True, "redirect_tags": True, "referrers": "missing"},
)
_ACR = Profile(
    "team.azurecr.io",
    {
        "auth": "bearer",
        "realm_path": "/oauth2/token",
        "challenge_service": "team.azurecr.io",
        "token_fields": ("access_token",),
        "token_expires_in": None,
        "token_lifetime": 4500.0,
        "token_post": None,
        "tags_scope": "metadata_read",
        "redirect": True,
    },
    username="0d7a6f3e-5b1c-4c8e-9f55-3a2b1c0d9e8f",
    password="Qx~8Q~service.principal_secret",
)
_ACR_IDENTITY = Profile(
    "team.azurecr.io by a refresh token",
    {**_ACR.dials, "anonymous": False, "exchange": {"aad-access-token": "00000000-0000-0000-0000-000000000000"}},
    username="00000000-0000-0000-0000-000000000000",
    password=_REFRESH_TOKEN,
)
_MICROSOFT = Profile(
    "mcr.microsoft.com",
    {
        "redirect": True,
        "referrers": "missing",
        "failures": [Failure(403, kind="manifest", method="HEAD", body="html", times=1)],
    },
)
_GITLAB = Profile(
    "registry.gitlab.com",
    {
        "auth": "bearer",
        "challenge_realm": "foreign",
        "realm_path": "/jwt/auth",
        "challenge_service": "container_registry",
        "token_fields": ("token",),
        "token_expires_in": 300,
        "token_denied": 403,
        "login_limit": 30,
        "redirect": True,
        "referrers": "missing",
        "dash_tags": True,
    },
    username="gitlab+deploy-token-1",
    password="gldt-A1b2C3d4E5f6G7h8I9j0",
)
_HARBOR = Profile(
    "harbor.example",
    {
        "auth": "bearer",
        "realm_path": "/service/token",
        "challenge_service": "harbor-registry",
        "token_expires_in": 1800,
        "token_lifetime": 1800.0,
        "not_found_code": "NOT_FOUND",
        "cookie": "sid=0123456789abcdef; Path=/; HttpOnly",
    },
    username="robot$team+puller",
    password="A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6",
)
_ARTIFACTORY = Profile(
    "artifactory.example",
    {
        "auth": "bearer",
        "realm_path": "/api/docker/{repository}/v2/token",
        "challenge_service": "artifactory.example",
        "challenge_scope": "get",
        "token_fields": ("token", "access_token"),
        "token_expires_in": 3600,
        "token_post": 401,
        "manifest_head_digest": False,
        "manifest_head_type": "application/octet-stream",
        "manifest_checksum": True,
        "redirect": True,
        "redirect_status": 302,
        "referrers": "missing",
        "tags_digests": True,
    },
    username="ann",
    password="cmVmdGtuOjAxOjE3",
    head_names_digest=False,
)
_ARTIFACTORY_BASIC = Profile(
    "artifactory.example with Basic",
    {
        "auth": "basic",
        "basic_open": True,
        "manifest_head_digest": False,
        "manifest_head_type": "application/octet-stream",
        "manifest_checksum": True,
        "referrers": "missing",
        "tags_digests": True,
    },
    username="ann",
    password="cmVmdGtuOjAxOjE3",
    head_names_digest=False,
)
_DISTRIBUTION = Profile("distribution", {"redirect": True, "cdn_seconds": 1200.0, "referrers": "missing"})
_DISTRIBUTION_BASIC = Profile(
    "distribution with Basic",
    {"auth": "basic", "redirect": True, "referrers": "missing"},
    username="ann",
    password="pass:word with spaces",
)
_DISTRIBUTION_BEARER = Profile(
    "distribution with Bearer",
    {
        "auth": "bearer",
        "challenge_realm": "foreign",
        "token_expires_in": None,
        "token_late": True,
        "redirect": True,
        "referrers": "missing",
    },
    username="ann",
    password="päss·wörd",
)
_NVIDIA = Profile(
    "nvcr.io",
    {
        "auth": "bearer",
        "realm_path": "/proxy_auth",
        "challenge_service": None,
        "token_fields": ("token",),
        "token_expires_in": 600,
        "redirect": True,
    },
    username="$oauthtoken",
    password="bnZhcGktMTIzNDU2Nzg5MA",
    addresses=lambda upstream: {"expired_realm": f"{upstream.cdn_url}/token"},
)
_RED_HAT = Profile(
    "registry.redhat.io",
    {
        "auth": "bearer",
        "anonymous": False,
        "challenge_realm": "foreign",
        "challenge_service": "docker-registry",
        "token_fields": ("token", "access_token"),
        "manifest_head_digest": False,
        "not_found_body": "code",
        "redirect": True,
        "redirect_status": 302,
        "blob_gzip": True,
    },
    username="1234567|puller",
    password=_LONG_SECRET,
    head_names_digest=False,
)
_RED_HAT_OPEN = Profile(
    "registry.access.redhat.com",
    {**_RED_HAT.dials, "anonymous": True, "not_found_body": "plain"},
    head_names_digest=False,
)

PROFILES = (
    _DOCKER_HUB,
    _GHCR,
    _QUAY,
    _ECR,
    _ECR_PUBLIC,
    _GOOGLE,
    _GCR,
    _KUBERNETES,
    _ACR,
    _ACR_IDENTITY,
    _MICROSOFT,
    _GITLAB,
    _HARBOR,
    _ARTIFACTORY,
    _ARTIFACTORY_BASIC,
    _DISTRIBUTION,
    _DISTRIBUTION_BASIC,
    _DISTRIBUTION_BEARER,
    _NVIDIA,
    _RED_HAT,
    _RED_HAT_OPEN,
)
