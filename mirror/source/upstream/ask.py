"""One request to an upstream, as a value."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from mirror.config import Upstream
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.oci.reference import Repository

# What a GET asks for that is to find out a size.
FIRST_BYTE: Mapping[str, str] = MappingProxyType({"Range": "bytes=0-0"})


def _usual(_ask: Ask, _answer: aiohttp.ClientResponse) -> None:
    """Take an answer for what its status says."""


class Ask(NamedTuple):
    """One request to an upstream: a path below `/v2/<name>/` that may end in a query, and what a plain 404 means.

    `step` is called whenever the request moved forward: a name, a connection, a redirect, a token, the answer itself;
    with how many times the usual patience the next one may need: 2 where TLS begins to be spoken, else 1.
    `base` is the endpoint that is asked, the upstream's own URL if empty. `is_anonymous`: as a caller without
    credentials would. `is_quick`: somebody who can be answered otherwise waits, so nothing is tried for long.
    `is_probe`: sent to learn whether an outage is over, so no breaker holds it back. `meaning` says what an answer that
    is no success means, where that is not what its status says elsewhere. `deadline` is when the head of an answer must
    have come, on the monotonic clock. None of the endpoints `avoided` is asked.
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
    meaning: Callable[[Ask, aiohttp.ClientResponse], RegistryError | None] = _usual
    deadline: float = math.inf
    avoided: frozenset[str] = frozenset()

    @property
    def endpoint(self) -> str:
        """The URL of the endpoint that is asked."""
        return self.base or self.upstream.url

    @property
    def url(self) -> URL:
        """The URL at the endpoint that is asked, which is told what upstream it stands for."""
        url = f"{self.endpoint}/v2/{self.repository.name}/{self.path}"
        if self.base:
            url += f"{'&' if '?' in self.path else '?'}{urlencode({'ns': self.upstream.name})}"
        return URL(url, encoded=True)

    @property
    def is_transfer(self) -> bool:
        """Whether the answer is content that may take long to arrive."""
        return self.kind == "blob" and self.method == "GET" and self.headers != FIRST_BYTE

    @property
    def seconds_left(self) -> float | None:
        """How long the head of an answer may still take; None where a token has its own time."""
        if self.kind == "token" or self.deadline == math.inf:
            return None
        return max(0.0, self.deadline - time.monotonic())
