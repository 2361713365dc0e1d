"""From a request's target to a value: which upstream, which repository, what of it. Four ways to name the upstream."""

from __future__ import annotations

import functools
import re
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import unquote, unquote_plus

from mirror.config import Upstream, Upstreams
from mirror.config.upstreams import DOCKER_HUB
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.oci.reference import MAX_NAME, Reference, Repository, is_name, parse_reference
from mirror.registry.access import Access

_REMEMBERED = 8192
_LONGEST_REMEMBERED = 512
_ABSOLUTE = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)


class Kind(StrEnum):
    """What is asked for; the values are those of the `kind` label."""

    PING = "other"
    MANIFEST = "manifest"
    BLOB = "blob"
    TAGS = "tags"
    REFERRERS = "referrers"
    CATALOG = "catalog"


class Target(NamedTuple):
    """A request's target, valid and allowed.

    `upstream` and `repository` are None where the whole mirror is meant. `query` is what is left of the query without
    `ns`, `path` the path as it was asked for, and `namespace` the value of `ns`, None if it was not used.
    """

    kind: Kind
    path: str
    query: str
    namespace: str | None
    upstream: Upstream | None = None
    repository: Repository | None = None
    reference: Reference | None = None

    @property
    def label(self) -> str:
        """The upstream's configured name for metrics, empty if there is none."""
        return self.upstream.label if self.upstream is not None else ""


class Router:
    """Parses targets, and remembers the latest."""

    def __init__(self, upstreams: Upstreams, access: Access) -> None:
        self._upstreams = upstreams
        self._access = access
        self._remembered = functools.lru_cache(_REMEMBERED)(self._route)

    def route(self, target: str, host: str) -> Target:
        """Return what a request-target (RFC 9112 §3.2) and a Host header ask for.

        Raises:
            RegistryError: a name, tag or digest is malformed, the upstream unknown, or the repository denied.
        """
        return (self._remembered if len(target) + len(host) <= _LONGEST_REMEMBERED else self._route)(target, host)

    def _route(self, target: str, host: str) -> Target:
        absolute = _ABSOLUTE.match(target)
        if absolute is not None:
            host, target = absolute[1], target[absolute.end() :] or "/"
        raw_path, _, raw_query = target.partition("?")
        path = unquote(raw_path, errors="surrogateescape")
        namespaces, query = _take_namespaces(raw_query)
        namespace = namespaces[0] if namespaces else None
        prefix, separator, rest = f"{path}/".partition("/v2/")
        if not separator:
            raise RegistryError(ErrorCode.NAME_UNKNOWN, f"{path[:MAX_NAME]!r} is no path of a registry")
        prefix, rest = prefix.strip("/"), rest.removesuffix("/")
        named = [self._lookup(name) for name in (*namespaces, prefix) if name]
        if not rest:
            return Target(Kind.PING, raw_path, query, namespace)
        if rest == "_catalog":
            return Target(Kind.CATALOG, raw_path, query, namespace)
        kind, name, reference = _split(rest)
        first, slash, below = name.partition("/")
        inner = self._upstreams.lookup(first) if slash else None
        if inner is not None:
            named.append(inner)
            name = below
        upstream = self._agree(named, host)
        if upstream.name == DOCKER_HUB and "/" not in name:
            name = f"library/{name}"
        if not is_name(name):
            raise RegistryError(ErrorCode.NAME_INVALID, f"{name[:MAX_NAME]!r} is not a repository name")
        repository = Repository(upstream.name, name)
        self._access.check(repository)
        return Target(kind, raw_path, query, namespace, upstream, repository, _parse(kind, reference))

    def _lookup(self, name: str) -> Upstream:
        upstream = self._upstreams.lookup(name)
        if upstream is None:
            raise RegistryError(ErrorCode.NAME_UNKNOWN, f"{name[:MAX_NAME]!r} is not a configured upstream")
        return upstream

    def _agree(self, named: list[Upstream], host: str) -> Upstream:
        if not named:
            by_host = self._upstreams.exact(host)
            return by_host if by_host is not None else self._lookup(DOCKER_HUB)
        if any(each.name != named[0].name for each in named):
            names = " and ".join(sorted({each.name for each in named}))
            raise RegistryError(ErrorCode.NAME_INVALID, f"the request names two upstreams: {names}")
        return named[0]


def _take_namespaces(raw_query: str) -> tuple[list[str], str]:
    """Return the values of `ns`, and the query without it, otherwise byte by byte: a cursor is the registry's own."""
    if "ns" not in raw_query:
        return [], raw_query
    names, rest = [], []
    for field in raw_query.split("&"):
        key, _, value = field.partition("=")
        if unquote_plus(key) == "ns":
            names.append(unquote_plus(value))
        else:
            rest.append(field)
    return [name for name in names if name], "&".join(rest)


def _split(rest: str) -> tuple[Kind, str, str]:
    """Return kind, name and reference of what follows `/v2/`; names may themselves hold words like `blobs`."""
    if rest.endswith("/tags/list"):
        return Kind.TAGS, rest.removesuffix("/tags/list"), ""
    head, _, reference = rest.rpartition("/")
    name, _, word = head.rpartition("/")
    kinds = {"manifests": Kind.MANIFEST, "blobs": Kind.BLOB, "referrers": Kind.REFERRERS}
    if word not in kinds or not name:
        raise RegistryError(ErrorCode.NAME_UNKNOWN, f"{rest[:MAX_NAME]!r} is no path of a registry")
    return kinds[word], name, reference


def _parse(kind: Kind, text: str) -> Reference | None:
    if kind is Kind.TAGS:
        return None
    try:
        return parse_reference(text) if kind is Kind.MANIFEST else Digest.parse(text)
    except ValueError as error:
        is_tag = kind is Kind.MANIFEST and ":" not in text
        raise RegistryError(ErrorCode.MANIFEST_INVALID if is_tag else ErrorCode.DIGEST_INVALID, str(error)) from None
