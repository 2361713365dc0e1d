"""What an upstream lets a caller without credentials have: its own URL is asked, and no body is read."""

from __future__ import annotations

from typing import Literal, NamedTuple

from mirror.config import Upstream
from mirror.oci import media_types
from mirror.oci.errors import ErrorCode
from mirror.oci.reference import Repository
from mirror.source.upstream import failures
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.client import BUDGET_SECONDS, UpstreamClient
from mirror.source.upstream.realm import TokenRefused

_NO = frozenset({401, 403})
_UNKNOWN = {
    "manifest": ErrorCode.MANIFEST_UNKNOWN,
    "blob": ErrorCode.BLOB_UNKNOWN,
    "tags": ErrorCode.NAME_UNKNOWN,
}
_FOLDERS = {"manifest": "manifests/", "blob": "blobs/", "tags": ""}


class Sample(NamedTuple):
    """Something of a repository that tells whether all of it is public: a manifest or a blob by name, or its tags."""

    kind: Literal["manifest", "blob", "tags"]
    name: str = "tags/list?n=1"


class AnonymousCaller:
    """Asks upstreams as a caller without credentials would."""

    def __init__(self, client: UpstreamClient) -> None:
        self._client = client

    async def may_have(self, upstream: Upstream, repository: Repository, sample: Sample, *, is_quick: bool) -> bool:
        """Say whether the upstream hands a sample out to anybody; `is_quick` if somebody waits who could do without.

        Raises:
            RegistryError: it says neither yes (200) nor no (401, 403).
        """
        path = f"{_FOLDERS[sample.kind]}{sample.name}"
        ask = Ask(upstream, repository, sample.kind, "GET", path, _UNKNOWN[sample.kind])
        ask = ask._replace(is_anonymous=True, is_quick=is_quick)
        if sample.kind == "manifest":
            ask = ask._replace(headers={"Accept": ", ".join(media_types.ACCEPT)})
        async with failures.time_limit(upstream, ask.url, BUDGET_SECONDS):
            if sample.kind == "tags":
                return await self._status(ask) == 200
            status = await self._head_status(ask._replace(method="HEAD"))
            if status not in {200, 401}:
                # Registries and their storage are known to refuse HEAD alone, or to answer it wrongly.
                first_byte = {"Range": "bytes=0-0"} if sample.kind == "blob" else {}
                status = await self._status(ask._replace(headers={**ask.headers, **first_byte}))
            return status == 200

    async def _head_status(self, ask: Ask) -> int | None:
        """Return as `_status` does, None for an answer that a GET may contradict."""
        try:
            return await self._status(ask)
        except failures.UpstreamError as error:
            if error.answered in {0, 429}:
                raise
            return None

    async def _status(self, ask: Ask) -> int:
        """Return 200 for any success; a refusal's status if it is the registry's own, or that of who gives tokens."""
        try:
            answer = await self._client.ask(ask)
        except TokenRefused:
            return 401
        except failures.UpstreamError as error:
            if error.answered in _NO and error.host == ask.url.authority:
                return error.answered
            raise
        answer.close()
        return 200
