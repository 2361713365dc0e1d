"""Where an upstream may lead: a public one never into a private network (a server-side request forgery)."""

from __future__ import annotations

import ipaddress
import re
import socket

from aiohttp.abc import AbstractResolver, ResolveResult

_MOST_REMEMBERED = 10_000
# Ways to write an IPv4 address within an IPv6 one, and how many bits follow it.
_EMBEDDED = (
    (ipaddress.IPv6Network("::/96"), 0),
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
)
# Networks of a machine or a site that count as global: IETF protocols, Azure's platform, the local-use NAT64 prefix.
_LOCAL = (
    ipaddress.ip_network("192.0.0.0/24"),
    ipaddress.ip_network("168.63.129.16/32"),
    ipaddress.ip_network("64:ff9b:1::/48"),
)
_NUMBER = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)")


class PrivateAddressError(OSError):
    """A name that a public upstream led to has only private addresses."""


class GuardedResolver(AbstractResolver):
    """Resolves names for dialling, without their private addresses."""

    def __init__(self, names: AbstractResolver) -> None:
        self._names = names

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses that may be dialled.

        Raises:
            PrivateAddressError: there are only others.
            OSError: the name cannot be resolved.
        """
        found = await self._names.resolve(host, port, family)
        public = [each for each in found if not is_private(each["host"])]
        if not public:
            raise PrivateAddressError(f"{host} has only private addresses")
        return public

    async def close(self) -> None:
        """Nothing is open."""


class Privacy:
    """Which configured hosts are themselves on private addresses, and so may lead to others.

    One that was found to be public stays so: its name must not turn inward later, when it wants to.
    """

    def __init__(self) -> None:
        self._public: dict[str, None] = {}

    async def is_private(self, host: str, names: AbstractResolver) -> bool:
        """Say whether a host, looked up in `names`, has private addresses alone.

        Raises:
            OSError: its name cannot be resolved.
        """
        if is_address(host):
            return is_private(host)
        if host in self._public:
            return False
        if all(is_private(each["host"]) for each in await names.resolve(host)):
            return True
        while len(self._public) >= _MOST_REMEMBERED:
            del self._public[next(iter(self._public))]
        self._public[host] = None
        return False


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
    if isinstance(parsed, ipaddress.IPv6Address):
        for network, following in _EMBEDDED:
            if parsed in network:
                return is_private(str(ipaddress.IPv4Address(int(parsed) >> following & 0xFFFFFFFF)))
    is_odd = parsed.is_multicast or parsed.is_reserved or getattr(parsed, "is_site_local", False)
    return not parsed.is_global or is_odd or any(parsed in each for each in _LOCAL)


def is_private_literal(host: str) -> bool:
    """Say whether a host as it is written is this machine or an address that is not public.

    An IPv4 address in any other spelling than the usual one counts as well: programs differ in what they make of it.
    """
    if is_address(host):
        return is_private(host)
    last = host.rstrip(".").rpartition(".")[2]
    return ":" in host or _NUMBER.fullmatch(last) is not None or last.lower() == "localhost"
