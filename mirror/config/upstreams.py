"""The upstreams that are mirrored: looked up by name, never dialled from a request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import urlsplit

from mirror.config.globs import compile_globs

DOCKER_HUB = "docker.io"
_ALIASES = MappingProxyType({"index.docker.io": DOCKER_HUB, "registry-1.docker.io": DOCKER_HUB})
_HOST = re.compile(
    r"(?=.{1,255}\Z)(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*(?::\d{1,5})?"
)

# What a user writes in front of an image → where its registry answers; globs answer at the host that was asked for.
BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "docker.io": "https://registry-1.docker.io",
        "ghcr.io": "https://ghcr.io",
        "quay.io": "https://quay.io",
        "registry.k8s.io": "https://registry.k8s.io",
        "gcr.io": "https://gcr.io",
        "*.gcr.io": "",
        "*.pkg.dev": "",
        "public.ecr.aws": "https://public.ecr.aws",
        "*.dkr.ecr.*.amazonaws.com": "",
        "mcr.microsoft.com": "https://mcr.microsoft.com",
        "*.azurecr.io": "",
        "registry.gitlab.com": "https://registry.gitlab.com",
        "nvcr.io": "https://nvcr.io",
        "registry.access.redhat.com": "https://registry.access.redhat.com",
        "registry.redhat.io": "https://registry.redhat.io",
    }
)


class Upstream(NamedTuple):
    """One mirrored registry: the name users write, the configured name or glob (`label`), and where it is dialled."""

    name: str
    label: str
    url: str
    ca_file: str = ""


class Upstreams:
    """All configured upstreams."""

    def __init__(self, tables: Mapping[str, Mapping[str, str]] = MappingProxyType({})) -> None:
        """Take `tables` (`url` and `ca_file` by name or glob) over the built-in ones.

        Raises:
            ValueError: a name is no host or glob, or a URL is no http or https origin.
        """
        merged = {name: {"url": url, "ca_file": ""} for name, url in BUILT_IN.items()}
        for name, table in tables.items():
            _check_name(name)
            merged[name] = {**merged.get(name, {"url": "", "ca_file": ""}), **table}
            if merged[name]["url"]:
                merged[name]["url"] = _origin(name, merged[name]["url"])
        self._exact = {
            name: Upstream(name, name, table["url"] or f"https://{name}", table["ca_file"])
            for name, table in merged.items()
            if "*" not in name
        }
        # The user's own globs first: theirs may be narrower than a built-in one.
        globs = [name for name in (*tables, *(name for name in merged if name not in tables)) if "*" in name]
        self._globs = tuple((compile_globs([name]), name, merged[name]) for name in globs)

    def lookup(self, host: str) -> Upstream | None:
        """Return the upstream that `host` names, as it stands in an image's name; None if it is not configured."""
        host = _ALIASES.get(host, host)
        found = self._exact.get(host)
        if found is not None or not self._globs or _HOST.fullmatch(host) is None:
            return found
        for matches, label, table in self._globs:
            if matches(host):
                return Upstream(host, label, table["url"] or f"https://{host}", table["ca_file"])
        return None

    def exact(self, host: str) -> Upstream | None:
        """Return the upstream whose configured name is `host` itself, no glob: for a Host header."""
        return self._exact.get(host)

    @property
    def ca_files(self) -> frozenset[str]:
        """Every `ca_file` that is configured."""
        tables = [table for _, _, table in self._globs]
        return frozenset(filter(None, (*(u.ca_file for u in self._exact.values()), *(t["ca_file"] for t in tables))))

    @property
    def names(self) -> tuple[str, ...]:
        """Every configured name and glob, the built-in ones first."""
        return (*self._exact, *(label for _, label, _ in self._globs))


def _check_name(name: str) -> None:
    if _HOST.fullmatch(name.replace("*", "x")) is None:
        raise ValueError(f"{name!r} is not a registry's host, such as ghcr.io or *.azurecr.io")


def _origin(name: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    is_origin = parts.scheme in {"http", "https"} and parts.hostname
    has_more = parts.query or parts.fragment or parts.username
    if not is_origin or has_more or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"url of {name!r} is {url!r}: write an origin such as https://{name}")
    return url.rstrip("/")
