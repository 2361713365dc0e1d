"""The frozen configuration: parsed and checked once, every default in `settings.py`.

May import: `oci`. Callers may rely on: a `Settings` is complete and valid; nobody else reads the
environment or the file.
"""

from mirror.config.cores import usable_cores
from mirror.config.load import ConfigError, load
from mirror.config.redis_url import Host, RedisUrl
from mirror.config.settings import Access as AccessSettings
from mirror.config.settings import Fleet as FleetSettings
from mirror.config.settings import Freshness as FreshnessSettings
from mirror.config.settings import Log as LogSettings
from mirror.config.settings import Prefetch as PrefetchSettings
from mirror.config.settings import Settings
from mirror.config.settings import Store as StoreSettings
from mirror.config.units import Secret
from mirror.config.upstreams import BUILT_IN, Upstream, Upstreams

__all__ = [
    "BUILT_IN",
    "AccessSettings",
    "ConfigError",
    "FleetSettings",
    "FreshnessSettings",
    "Host",
    "LogSettings",
    "PrefetchSettings",
    "RedisUrl",
    "Secret",
    "Settings",
    "StoreSettings",
    "Upstream",
    "Upstreams",
    "load",
    "usable_cores",
]
