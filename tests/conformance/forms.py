"""The four ways in which a request names its upstream, and the mirror's own default."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote

from tests.conformance.wire import Answer, Door

UPSTREAM = "registry.example"
WITH_PORT = "registry.example:5000"
COUNTED = "counted.example"
"""An upstream that one test alone asks, so that its counters are that test's."""
FAILING = tuple(f"failing-{number}.example" for number in range(6))
"""Upstreams that are asked by one test each, so that what a replica learns of a bad hour stays there."""


class Form(NamedTuple):
    """One way to address `upstream`: what goes before `/v2`, into the name, into the query, into the Host header."""

    before: str = ""
    within: str = ""
    query: str = ""
    host: str = ""

    def target(self, rest: str) -> str:
        """Return the request target for `<name>/<endpoint>[?query]`."""
        target = f"{self.before}/v2/{self.within}{rest}"
        if self.query:
            target += ("&" if "?" in rest else "?") + self.query
        return target

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that the form needs."""
        return {"Host": self.host} if self.host else {}

    def get(self, door: Door, rest: str) -> Answer:
        """GET `<name>/<endpoint>[?query]` in this form."""
        return door.get(self.target(rest), self.headers)


def forms(upstream: str) -> dict[str, Form]:
    """Return every form for one upstream."""
    return {
        "ns": Form(query=f"ns={quote(upstream, safe='')}"),
        "name": Form(within=f"{upstream}/"),
        "path": Form(before=f"/{upstream}"),
        "host": Form(host=upstream),
        "name and ns": Form(within=f"{upstream}/", query=f"ns={quote(upstream, safe='')}"),
    }
