"""Which platforms clients pull, of each repository and of each upstream. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from mirror.oci.digest import Digest
from mirror.oci.manifest import PlatformManifest
from mirror.oci.platform import Platform
from mirror.oci.reference import Repository

# A platform that nobody pulled anything new for in so long is no longer pulled.
_FORGOTTEN_SECONDS = 14 * 24 * 3600.0
_MOST_LISTED = 20_000
_MOST_PLACES = 10_000
_MOST_PLATFORMS = 8


class PulledPlatforms:
    """Learns from the manifests that clients pull. Every `now` is of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._listed: dict[tuple[Repository, Digest], Platform] = {}
        self._pulled: dict[str, dict[Platform, float]] = {}

    def list(self, repository: Repository, manifests: Iterable[PlatformManifest]) -> None:
        """Take in for which platform each manifest of an index is."""
        for each in manifests:
            self._listed.pop((repository, each.digest), None)
            self._listed[repository, each.digest] = each.platform
        while len(self._listed) > _MOST_LISTED:
            del self._listed[next(iter(self._listed))]

    def pull(self, repository: Repository, digest: Digest, now: float) -> None:
        """Note that a client pulled a manifest; of one that no index lists nothing is learnt."""
        platform = self._listed.get((repository, digest))
        if platform is not None:
            self.note(str(repository), platform, now)
            self.note(repository.upstream, platform, now)

    def note(self, place: str, platform: Platform, now: float) -> None:
        """Note that a platform is pulled of a repository or an upstream."""
        pulled = self._pulled.pop(place, {})
        self._pulled[place] = pulled
        pulled.pop(platform, None)
        pulled[platform] = now
        while len(pulled) > _MOST_PLATFORMS:
            del pulled[next(iter(pulled))]
        while len(self._pulled) > _MOST_PLACES:
            del self._pulled[next(iter(self._pulled))]

    def of(self, place: str, now: float) -> tuple[Platform, ...]:
        """Return what is known to be pulled of a repository or an upstream."""
        pulled = self._pulled.get(place, {})
        return tuple(platform for platform, at in pulled.items() if now < at + _FORGOTTEN_SECONDS)


def chosen(manifests: Iterable[PlatformManifest], wanted: Iterable[Platform]) -> tuple[Digest, ...]:
    """Return the manifests of an index that clients of the platforms `wanted` would pull."""
    offered: dict[Platform, Digest] = {}
    for each in manifests:
        if each.platform.is_known:
            offered.setdefault(each.platform, each.digest)
    found = (platform.best(offered) for platform in wanted)
    return tuple(dict.fromkeys(offered[each] for each in found if each is not None))
