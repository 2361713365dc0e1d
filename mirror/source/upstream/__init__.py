"""One upstream registry at a time: authentication, redirects, retries, and what its answers mean."""

from mirror.source.upstream.blobs import UpstreamBlobs
from mirror.source.upstream.client import UpstreamClient
from mirror.source.upstream.listings import UpstreamListings
from mirror.source.upstream.manifests import UpstreamManifests
from mirror.source.upstream.proxies import Proxies

__all__ = ["Proxies", "UpstreamBlobs", "UpstreamClient", "UpstreamListings", "UpstreamManifests"]
