"""Where a request path leads: parsed once, then only values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

Kind = Literal["manifest", "blob", "tags", "referrers", "token", "exchange", "ping", "cdn", "upload", "other"]
Origin = Literal["registry", "cdn", "auth"]

_NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
_DIGEST = r"[a-z0-9]+:[0-9a-f]+"
_PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("ping", re.compile(r"/v2/?")),
    ("upload", re.compile(rf"/v2/(?P<repository>{_NAME})/blobs/uploads/(?P<reference>[0-9a-f]*)")),
    ("blob", re.compile(rf"/v2/(?P<repository>{_NAME})/blobs/(?P<reference>{_DIGEST})")),
    ("manifest", re.compile(rf"/v2/(?P<repository>{_NAME})/manifests/(?P<reference>[\w.:-]+)")),
    ("tags", re.compile(rf"/v2/(?P<repository>{_NAME})/tags/list")),
    ("referrers", re.compile(rf"/v2/(?P<repository>{_NAME})/referrers/(?P<reference>{_DIGEST})")),
    ("cdn", re.compile(rf"/storage/(?P<repository>{_NAME})/(?P<reference>{_DIGEST})")),
    ("exchange", re.compile(r"/oauth2/exchange")),
    (
        "token",
        re.compile(r"/(?:token|v2/auth|jwt/auth|service/token|oauth2/token|proxy_auth|api/docker/[^/]+/v2/token)"),
    ),
)


@dataclass(frozen=True)
class Route:
    """What a request asks for, and of which origin. `reference` is a tag, a digest, an upload id, or empty."""

    kind: Kind
    repository: str = ""
    reference: str = ""
    origin: Origin = "registry"

    @property
    def digest(self) -> str:
        """Return the digest asked for, or "" when the request named none."""
        return self.reference if ":" in self.reference else ""


def parse(origin: Origin, path: str) -> Route:
    """Return the route of a raw path (no query); an unknown path has the kind `other`."""
    plain = unquote(path)
    for kind, pattern in _PATTERNS:
        if match := pattern.fullmatch(plain):
            groups = match.groupdict()
            return Route(kind, groups.get("repository", ""), groups.get("reference", ""), origin)
    return Route("other", origin=origin)
