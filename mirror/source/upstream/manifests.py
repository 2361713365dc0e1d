"""Manifests of an upstream: asked with one Accept set, verified against the digest asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from mirror.config import Upstream
from mirror.observe.metrics import HubMetrics
from mirror.oci import media_types
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.manifest import digest_of, is_manifest, media_type_of, verifies
from mirror.oci.reference import Reference, Repository, Tag
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.client import UpstreamClient
from mirror.source.upstream.failures import RETRY_AFTER, UpstreamError, unusable
from mirror.source.upstream.heads import Heads

# Clients take 4 MiB at most.
LONGEST_MANIFEST = 4 * 2**20
# Whoever answers a HEAD so has none.
_NO_HEAD = frozenset({405, 501})


def _ignore(_: int) -> None:
    """Take a step of somebody who does not count them."""


class FetchedManifest(NamedTuple):
    """A manifest as the upstream sent it, verified."""

    digest: Digest
    media_type: str
    body: bytes


class ManifestHead(NamedTuple):
    """What a HEAD said of a manifest; None for what it left out."""

    digest: Digest | None
    media_type: str | None


class CheckedHead(NamedTuple):
    """What a HEAD said of a manifest, its digest among it."""

    digest: Digest
    media_type: str | None


class UpstreamManifests:
    """Fetches and looks at manifests."""

    def __init__(self, client: UpstreamClient, metrics: HubMetrics) -> None:
        self._client = client
        self._metrics = metrics
        self._heads = Heads()

    async def fetch(
        self,
        upstream: Upstream,
        repository: Repository,
        reference: Reference,
        step: Callable[[int], None] = _ignore,
        *,
        is_quick: bool = False,
        is_probe: bool = False,
    ) -> FetchedManifest:
        """Return a manifest; `step` is called whenever the request moved forward.

        Raises:
            RegistryError: the upstream has none, failed, or sent something with another digest.
        """
        ask = _ask(upstream, repository, reference, "GET")
        ask = ask._replace(step=step, is_quick=is_quick, is_probe=is_probe)
        return await self._client.fetch(
            ask, LONGEST_MANIFEST, lambda headers, body: self._verified(upstream, reference, headers, body)
        )

    async def head(
        self,
        upstream: Upstream,
        repository: Repository,
        reference: Reference,
        step: Callable[[int], None] = _ignore,
        *,
        is_quick: bool = False,
        is_probe: bool = False,
    ) -> ManifestHead:
        """Return what the upstream's HEAD says; `step` is called whenever the request moved forward.

        Raises:
            RegistryError: the upstream has none, or failed.
        """
        ask = _ask(upstream, repository, reference, "HEAD")
        answer = await self._client.ask(ask._replace(step=step, is_quick=is_quick, is_probe=is_probe))
        answer.release()
        headers = answer.headers
        return ManifestHead(_digest(headers.get("Docker-Content-Digest")), _media_type(headers.get("Content-Type")))

    async def check(
        self,
        upstream: Upstream,
        repository: Repository,
        tag: Tag,
        step: Callable[[int], None],
        *,
        is_probe: bool,
        may_get: bool,
    ) -> CheckedHead | FetchedManifest:
        """Return where a tag points, by a HEAD, or by a GET where this upstream's HEAD is of no use.

        Raises:
            RegistryError: the upstream has none, or failed; with `Failure.QUOTA` if only a GET could tell and may not.
        """
        is_certain = self._heads.is_useless(upstream)
        if not is_certain:
            try:
                head = await self.head(upstream, repository, tag, step, is_quick=True, is_probe=is_probe)
            except UpstreamError as error:
                is_certain = error.answered in _NO_HEAD
                if not is_certain and not self._is_worth_a_get(upstream, error):
                    raise
            else:
                if head.digest is not None:
                    self._heads.told(upstream)
                    return CheckedHead(head.digest, head.media_type)
                is_certain = True
        if not may_get:
            text = f"upstream {upstream.name} tells where a tag points by GET alone, and its quota runs short"
            raise RegistryError(ErrorCode.TOOMANYREQUESTS, text, failure=Failure.QUOTA, retry_after=RETRY_AFTER)
        found = await self.fetch(upstream, repository, tag, step, is_quick=True, is_probe=is_probe)
        self._heads.outdone(upstream, is_certain=is_certain)
        return found

    def _is_worth_a_get(self, upstream: Upstream, error: UpstreamError) -> bool:
        """Say whether a GET may be answered though a HEAD was refused, and learn from it."""
        is_denied = error.answered == 403 and error.failure is not None
        if not is_denied and error.answered < 500:
            return False
        self._heads.failed(upstream)
        return is_denied or self._heads.has_failed_often(upstream)

    def _verified(
        self, upstream: Upstream, reference: Reference, headers: Mapping[str, str], body: bytes
    ) -> FetchedManifest:
        digest = reference if isinstance(reference, Digest) else _digest(headers.get("Docker-Content-Digest"))
        if digest is None:
            digest = digest_of(body)
        if not verifies(body, digest):
            self._metrics.digest_mismatches.labels(upstream.label).inc()
            raise unusable(upstream, f"sent a manifest that does not have the digest {digest}")
        if not isinstance(reference, Digest) and not is_manifest(body):
            raise unusable(upstream, "sent something that is no manifest")
        return FetchedManifest(digest, _media_type(headers.get("Content-Type")) or media_type_of(body), body)


def _ask(upstream: Upstream, repository: Repository, reference: Reference, method: str) -> Ask:
    accept = {"Accept": ", ".join(media_types.ACCEPT)}
    path = f"manifests/{reference}"
    return Ask(upstream, repository, "manifest", method, path, ErrorCode.MANIFEST_UNKNOWN, accept)


def _digest(text: str | None) -> Digest | None:
    try:
        return Digest.parse(text.strip()) if text else None
    except ValueError:
        return None


def _media_type(text: str | None) -> str | None:
    """Return the media type without parameters; None for the types that say nothing."""
    bare = (text or "").partition(";")[0].strip()
    says_nothing = not bare or bare in {media_types.OCTET_STREAM, media_types.JSON} or bare.startswith("text/")
    return None if says_nothing or not bare.isascii() or not bare.isprintable() else bare
