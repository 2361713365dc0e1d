"""Every way in which an upstream attacks, what is asked of it, and what its own client may be told."""

from __future__ import annotations

from tests.chaos import hostile_content, hostile_http, hostile_leads
from tests.chaos.hostile_answers import PLAIN, challenge, full, manifest
from tests.chaos.hostile_case import Case
from tests.chaos.hostile_server import Exchange

GROUPS = (
    hostile_http.bodies,
    hostile_http.heads,
    hostile_http.statuses,
    hostile_http.lengths,
    hostile_http.framing,
    hostile_leads.redirects,
    hostile_leads.challenges,
    hostile_leads.tokens,
    hostile_content.blobs,
    hostile_content.resumed,
    hostile_content.lists,
)


def cases() -> list[Case]:
    """Return all of them."""
    return [case for group in GROUPS for case in group()]


def target(case: Case, name: str) -> str:
    """Return the path to ask for a case whose upstream is `name`."""
    endings = {
        "manifest": "manifests/1",
        "digest": f"manifests/sha256:{'1' * 64}",
        "tags": "tags/list",
        "referrers": f"referrers/{case.image.manifest_digest}",
    }
    return f"/v2/{name}/team/app/{endings.get(case.ask, f'blobs/{case.image.digest}')}"


def expected(case: Case) -> str:
    """Return the digest of what a case's honest answer would be; nothing where it does not matter."""
    if case.ask in {"blob", "layer"}:
        return case.image.digest
    return case.image.manifest_digest if case.ask in {"manifest", "digest"} else ""


async def thief(exchange: Exchange) -> None:
    """Answer at the server that is no registry's own, and would like to know more."""
    path = exchange.heard.target
    if "manifest" in path:
        await exchange.answer(manifest())
    elif "blob" in path:
        await exchange.answer(full(PLAIN.layer))
    elif path.startswith("/token"):
        await exchange.answer(full(b'{"token":"stolen"}'))
    else:
        await exchange.answer(challenge(f"{exchange.peer.url}/token"))
