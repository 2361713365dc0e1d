"""The upstreams that are mirrored: looked up by name, never dialled from a request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from mirror.config.globs import compile_globs
from mirror.config.units import Rate, Secret

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


Private = Literal["refuse", "anyone"]
Provider = Literal["", "ecr", "google", "azure"]


class Upstream(NamedTuple):
    """One mirrored registry: the name users write, the configured name or glob (`label`), and where it is dialled.

    `endpoints` are asked before `url`, in order. Credentials are the user's name and password (from a file where
    `password_file` is set), those of a Docker configuration, a cloud's, or none. `bandwidth` in bytes a second, 0 for
    any.
    """

    name: str
    label: str
    url: str
    ca_file: str = ""
    endpoints: tuple[str, ...] = ()
    username: str = ""
    password: Secret = Secret()
    password_file: str = ""
    docker_config: str = ""
    provider: Provider = ""
    private: Private = "refuse"
    bandwidth: int = 0
    max_connections: int = 32

    @property
    def has_credentials(self) -> bool:
        """Whether the mirror is more than an anonymous caller there."""
        return bool(self.username or self.docker_config or self.provider)


class UpstreamTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[upstreams."name"]` as it is written; what is left out is as for `Upstream`."""

    url: str = ""
    ca_file: str = ""
    endpoints: tuple[str, ...] = ()
    username: str = ""
    password: Secret = Secret()
    password_file: str = ""
    docker_config: str = ""
    provider: Provider = ""
    private: Literal["refuse", "anyone", "authenticated", "upstream"] = "refuse"
    bandwidth: Rate = Rate()
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 32


class Upstreams:
    """All configured upstreams."""

    def __init__(self, tables: Mapping[str, Mapping[str, Any]] = MappingProxyType({})) -> None:
        """Take `tables` (fields of `UpstreamTable` by name or glob) over the built-in ones.

        Raises:
            ValueError: a name is no host or glob, a URL is no http or https origin, or credentials are not whole.
        """
        merged: dict[str, dict[str, Any]] = {name: {"url": url} for name, url in BUILT_IN.items()}
        for name, table in tables.items():
            _check_name(name)
            merged[name] = {"url": "", **merged.get(name, {}), **table}
            _check_credentials(name, merged[name])
            if merged[name]["url"]:
                merged[name]["url"] = _origin(name, "url", merged[name]["url"])
            merged[name]["endpoints"] = tuple(
                _origin(name, "endpoints", each) for each in merged[name].get("endpoints", ())
            )
        self._exact = {name: _upstream(name, name, table) for name, table in merged.items() if "*" not in name}
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
                return _upstream(host, label, table)
        return None

    def exact(self, host: str) -> Upstream | None:
        """Return the upstream whose configured name is `host` itself, no glob: for a Host header."""
        return self._exact.get(host)

    @property
    def all(self) -> tuple[Upstream, ...]:
        """Every configured upstream; a glob stands for all that it matches, under its own name."""
        return (*self._exact.values(), *(_upstream(label, label, table) for _, label, table in self._globs))

    @property
    def ca_files(self) -> frozenset[str]:
        """Every `ca_file` that is configured."""
        return frozenset(each.ca_file for each in self.all if each.ca_file)

    @property
    def names(self) -> tuple[str, ...]:
        """Every configured name and glob, the built-in ones first."""
        return (*self._exact, *(label for _, label, _ in self._globs))


def _check_name(name: str) -> None:
    if _HOST.fullmatch(name.replace("*", "x")) is None:
        raise ValueError(f"{name!r} is not a registry's host, such as ghcr.io or *.azurecr.io")


def _upstream(host: str, label: str, table: Mapping[str, Any]) -> Upstream:
    return Upstream(host, label, **{**table, "url": table["url"] or f"https://{host}"})


def _check_credentials(name: str, table: Mapping[str, Any]) -> None:
    kinds = [key for key in ("username", "docker_config", "provider") if table.get(key)]
    secrets = [key for key in ("password", "password_file") if table.get(key)]
    if len(kinds) > 1:
        raise ValueError(f'"{name}" has {" and ".join(kinds)}: keep one of them')
    if kinds == ["username"] and len(secrets) != 1:
        raise ValueError(f'"{name}".username: needs either password or password_file beside it')
    if secrets and kinds != ["username"]:
        raise ValueError(f'"{name}".{secrets[0]}: needs a username beside it, and neither docker_config nor provider')


def _origin(name: str, key: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    is_origin = parts.scheme in {"http", "https"} and parts.hostname
    has_more = parts.query or parts.fragment or parts.username
    if not is_origin or has_more or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{key} of {name!r} is {url!r}: write an origin such as https://{name}")
    return url.rstrip("/")
