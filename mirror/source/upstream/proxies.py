"""Proxies towards upstreams, from `HTTPS_PROXY` and its kin; never anything else of the environment, such as netrc."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from yarl import URL


class Proxies:
    """The environment's proxies, read once."""

    def __init__(self, proxies: Mapping[str, str]) -> None:
        """Take proxies by scheme, and under `no` the hosts that have none."""
        self._proxies = dict(proxies)

    @classmethod
    def of_environment(cls) -> Proxies:
        """Return what `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say."""
        return cls(getproxies_environment())

    def of(self, url: URL) -> str | None:
        """Return the proxy through which a URL is dialled, None if it is dialled itself."""
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        if not proxy or proxy_bypass_environment(url.authority, self._proxies):
            return None
        return proxy
