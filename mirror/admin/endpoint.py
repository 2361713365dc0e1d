"""One thing that operators can ask or order over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec


class What(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An image (`alpine:3`), a digest, or a glob over upstream/repository:tag."""

    what: str


class Asked(NamedTuple):
    """A request whose query and body were read."""

    query: Mapping[str, str]
    body: What | None


class Endpoint(NamedTuple):
    """How it is asked and what it answers: the route and its description both follow from this.

    `query` has the parameters with what they mean; those in `needed` must be given.
    """

    method: str
    path: str
    summary: str
    answer: type[msgspec.Struct]
    ask: Callable[[Asked], Awaitable[msgspec.Struct]]
    query: Mapping[str, str] = MappingProxyType({})
    needed: frozenset[str] = frozenset()
    takes_body: bool = False
