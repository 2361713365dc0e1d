"""One upstream registry at a time: authentication, redirects, retries, and what its answers mean."""

from mirror.source.upstream.anonymous import AnonymousCaller, Sample
from mirror.source.upstream.blobs import UpstreamBlobs
from mirror.source.upstream.client import UpstreamClient
from mirror.source.upstream.listing_cache import ListingCache
from mirror.source.upstream.listings import Listed, Page, UpstreamListings
from mirror.source.upstream.manifests import CheckedHead, FetchedManifest, ManifestHead, UpstreamManifests
from mirror.source.upstream.proxies import Proxies
from mirror.source.upstream.quota import Level, Quotas
from mirror.source.upstream.quota_news import QuotaNews
from mirror.source.upstream.scopes import Scopes
from mirror.source.upstream.tls import tls_contexts

__all__ = [
    "AnonymousCaller",
    "CheckedHead",
    "FetchedManifest",
    "Level",
    "Listed",
    "ListingCache",
    "ManifestHead",
    "Page",
    "Proxies",
    "QuotaNews",
    "Quotas",
    "Sample",
    "Scopes",
    "UpstreamBlobs",
    "UpstreamClient",
    "UpstreamListings",
    "UpstreamManifests",
    "tls_contexts",
]
