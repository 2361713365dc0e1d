"""One upstream registry at a time: authentication, redirects, retries, and what its answers mean."""

from mirror.source.upstream.blobs import UpstreamBlobs
from mirror.source.upstream.client import UpstreamClient
from mirror.source.upstream.listings import UpstreamListings
from mirror.source.upstream.manifests import CheckedHead, FetchedManifest, ManifestHead, UpstreamManifests
from mirror.source.upstream.proxies import Proxies
from mirror.source.upstream.quota import Level, Quotas

__all__ = [
    "FetchedManifest",
    "Level",
    "Proxies",
    "Quotas",
    "UpstreamBlobs",
    "UpstreamClient",
    "UpstreamListings",
    "UpstreamManifests",
]
