"""One request to an upstream, as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import urlencode

from yarl import URL

from mirror.config import Upstream
from mirror.oci.errors import ErrorCode
from mirror.oci.reference import Repository


class Ask(NamedTuple):
    """One request to an upstream: a path below `/v2/<name>/` that may end in a query, and what a plain 404 means.

    `step` is called whenever the request moved forward: a name, a connection, a redirect, a token, the answer itself;
    with how many times the usual patience the next one may need: 2 where TLS begins to be spoken, else 1.
    `base` is the endpoint that is asked, the upstream's own URL if empty. `is_anonymous`: as a caller without
    credentials would. `is_quick`: somebody who can be answered otherwise waits, so nothing is tried for long.
    `is_probe`: sent to learn whether an outage is over, so no breaker holds it back.
    """

    upstream: Upstream
    repository: Repository
    kind: str
    method: str
    path: str
    unknown: ErrorCode
    headers: Mapping[str, str] = MappingProxyType({})
    step: Callable[[int], None] = lambda _: None
    base: str = ""
    is_anonymous: bool = False
    is_quick: bool = False
    is_probe: bool = False

    @property
    def url(self) -> URL:
        """The URL at the endpoint that is asked, which is told what upstream it stands for."""
        url = f"{self.base or self.upstream.url}/v2/{self.repository.name}/{self.path}"
        if self.base:
            url += f"{'&' if '?' in self.path else '?'}{urlencode({'ns': self.upstream.name})}"
        return URL(url, encoded=True)
