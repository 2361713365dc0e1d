"""Whether what is held may be served, as `upstreams.<name>.private` asks and as the last verdict tells. No I/O."""

from __future__ import annotations

from enum import Enum

from mirror.config import Upstream
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.oci.reference import Repository
from mirror.store.records import Link, Verdict

VERDICT_SECONDS = 3600.0


class Ruling(Enum):
    """What a verdict means for a request: serve it, refuse it, or have the upstream asked first."""

    SERVE = "serve"
    REFUSE = "refuse"
    ASK = "ask"


def needs_verdict(upstream: Upstream, link: Link | None) -> bool:
    """Say whether a verdict decides about what a link leads to; with no link, about what would be fetched."""
    if upstream.has_credentials:
        return upstream.private == "refuse"
    return link is not None and link.is_guarded and upstream.private == "refuse"


def is_current(verdict: Verdict, now: float) -> bool:
    """Say whether a verdict is believed without asking again; `now` in seconds since the epoch."""
    return 0 <= now - verdict.checked_at < VERDICT_SECONDS


def rule(verdict: Verdict | None, now: float) -> Ruling:
    """Return what may be done without asking: what was public is served on, what was private is asked for again."""
    if verdict is None:
        return Ruling.ASK
    if not verdict.is_private:
        return Ruling.SERVE
    return Ruling.REFUSE if is_current(verdict, now) else Ruling.ASK


def refusal(upstream: Upstream, repository: Repository, *, is_known: bool = True) -> RegistryError:
    """Return what a client is told of a private repository, or of one that was not found to be public."""
    found = "is private at" if is_known else "was not found to be public at"
    text = (
        f"{repository} {found} {upstream.name}, and this mirror does not serve private repositories "
        f'(upstreams."{upstream.label}".private)'
    )
    return RegistryError(ErrorCode.DENIED, text)
