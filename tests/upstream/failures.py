"""Error answers that a test injects, in place of the real ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tests.upstream.routes import Kind

Shape = Literal["json", "plain", "html", "code", "empty"]
"""The body of an error: the specification's, text, a page, `{"code":"404"}` without an errors list, or none."""


@dataclass(slots=True)
class Failure:
    """An error answer instead of the real one, for the requests that match every filter given.

    It comes before any challenge. `skip` requests that match pass first; then `times` of them fail (None: all that
    follow).
    """

    status: int
    kind: Kind | None = None
    method: str | None = None
    repository: str | None = None
    reference: str | None = None
    skip: int = 0
    times: int | None = None
    body: Shape = "json"
    code: str | None = None
    """The error code in a JSON body; None: the usual one for the status."""
    message: str = "injected by the test"
    retry_after: str | None = None
    """The Retry-After header as it goes out: seconds, an HTTP date, or None for no header."""
    headers: dict[str, str] = field(default_factory=dict)

    def matches(self, kind: Kind, method: str, repository: str, reference: str) -> bool:
        """Tell whether this failure answers such a request, and use up one of its times if so."""
        wanted = ((self.kind, kind), (self.method, method), (self.repository, repository), (self.reference, reference))
        if any(filter_ is not None and filter_ != value for filter_, value in wanted):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            if not self.times:
                return False
            self.times -= 1
        return True
