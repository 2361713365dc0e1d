"""Docker's configuration, `config.json`: whose credentials it holds, and which program to ask for those it does not."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from mirror.config import Upstream
from mirror.config.upstreams import DOCKER_HUB
from mirror.source.upstream.credentials import secret_file
from mirror.source.upstream.credentials.credential import Credential, CredentialError, usable

_KEY = "docker_config"
_HUB_SERVER = "https://index.docker.io/v1/"
_HUB_HOSTS = ("index.docker.io", "docker.io", "registry-1.docker.io")
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_Value = TypeVar("_Value")


class _Login(msgspec.Struct):
    auth: str | None = None
    username: str | None = None
    password: str | None = None
    identitytoken: str | None = None


class _File(msgspec.Struct):
    auths: dict[str, _Login | None] | None = None
    helpers: dict[str, str] | None = msgspec.field(default=None, name="credHelpers")
    store: str | None = msgspec.field(default=None, name="credsStore")


class HelperCall(NamedTuple):
    """What to ask a credential helper for: the program is `docker-credential-<helper>`."""

    helper: str
    server: str


class DockerConfig:
    """One `config.json` as it was read."""

    def __init__(self, name: str, parsed: _File) -> None:
        self._what = f"{_KEY} {name}"
        self._auths: Mapping[str, _Login | None] = MappingProxyType(parsed.auths or {})
        self._helpers = MappingProxyType(parsed.helpers or {})
        self._store = parsed.store or ""

    @classmethod
    def read(cls, name: str) -> DockerConfig:
        """Read a file.

        Raises:
            CredentialError: it cannot be read, or is no such configuration.
        """
        text = secret_file.read(_KEY, name)
        try:
            return cls(name, msgspec.json.decode(text, type=_File))
        except (msgspec.MsgspecError, RecursionError) as error:
            # Of the content a message names keys and types alone.
            raise CredentialError(f"{_KEY} {name}: is no Docker configuration: {error}") from None

    def places(self, upstream: Upstream) -> tuple[HelperCall | Credential, ...]:
        """Return where an upstream's credentials may be, the likeliest first.

        Raises:
            CredentialError: what is written for it cannot be used.
        """
        is_hub = upstream.name == DOCKER_HUB
        hosts = _HUB_HOSTS if is_hub else tuple(dict.fromkeys((upstream.name, urlsplit(upstream.url).netloc)))
        servers = (_HUB_SERVER,) if is_hub else hosts
        helper = _find(self._helpers, servers, hosts) or self._store
        found: list[HelperCall | Credential] = []
        if helper:
            if _HELPER.fullmatch(helper) is None:
                raise CredentialError(f"{self._what}: {helper[:50]!r} is no name of a credential helper")
            found += [HelperCall(helper, server) for server in servers]
        login = _find(self._auths, servers, hosts)
        credential = self._credential(login) if login is not None else None
        return (*found, credential) if credential is not None else tuple(found)

    def _credential(self, login: _Login) -> Credential | None:
        what = f"{self._what}: auths"
        username, password = login.username or "", login.password or ""
        if login.auth:
            try:
                pair = base64.b64decode(login.auth.strip(), validate=True).decode()
            except (binascii.Error, UnicodeDecodeError, ValueError):
                raise CredentialError(f"{what}: an auth is not base64 of a user name and a password") from None
            username, _, password = pair.partition(":")
            password = password.rstrip("\0")
        if login.identitytoken:
            return usable(what, username, login.identitytoken, is_token=True)
        if not username and not password:
            return None
        return usable(what, username, password)


def _find(table: Mapping[str, _Value], servers: tuple[str, ...], hosts: tuple[str, ...]) -> _Value | None:
    """Return what a table has under one of `servers` to the letter, else under a URL of one of `hosts`."""
    for server in servers:
        if server in table:
            return table[server]
    by_host = {_host(key): value for key, value in table.items()}
    return next((by_host[host] for host in hosts if host in by_host), None)


def _host(key: str) -> str:
    return key.partition("://")[2 if "://" in key else 0].partition("/")[0].lower()
