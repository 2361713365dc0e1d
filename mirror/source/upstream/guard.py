"""Where an upstream may lead: a public one never into a private network (a server-side request forgery)."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from mirror.config import Upstream

_REMEMBERED_SECONDS = 60.0


class PrivateAddressError(OSError):
    """A name that a public upstream led to has only private addresses."""


class GuardedResolver(AbstractResolver):
    """Resolves names for dialling, without their private addresses."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses that may be dialled.

        Raises:
            PrivateAddressError: there are only others.
            OSError: the name cannot be resolved.
        """
        found = await self._resolver.resolve(host, port, family)
        public = [each for each in found if not is_private(each["host"])]
        if not public:
            raise PrivateAddressError(f"{host} has only private addresses")
        return public

    async def close(self) -> None:
        """Nothing is open."""


class Privacy:
    """Which upstreams are themselves on private addresses, and so may lead to others."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[bool, float]] = {}

    async def is_private(self, upstream: Upstream, host: str) -> bool:
        """Say whether an upstream, whose URL names `host`, is on a private address; one that cannot be found is not."""
        known, until = self._known.get(upstream.url, (False, 0.0))
        if until > time.monotonic():
            return known
        if is_address(host):
            found = is_private(host)
        else:
            try:
                answers = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
                found = any(is_private(str(each[4][0])) for each in answers)
            except OSError:
                found = False
        self._known[upstream.url] = (found, time.monotonic() + _REMEMBERED_SECONDS)
        return found


def is_address(host: str) -> bool:
    """Say whether a host is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def is_private(address: str) -> bool:
    """Say whether an IP address is not one of the public internet: loopback, link-local, private, shared, reserved."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return not (mapped or parsed).is_global
