"""Every setting with its default. `PLANNED` holds the names that are promised but whose feature is not there yet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec

from mirror.config.redis_url import RedisUrl
from mirror.config.units import Address, Duration, Origin, Region, Secret, Size
from mirror.config.upstreams import Upstreams
from mirror.oci.platform import Platform


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[server]`: the data port, the admin port, and how to end."""

    listen: Annotated[tuple[Address, ...], msgspec.Meta(min_length=1)] = (Address("0.0.0.0", 5000),)  # noqa: S104 - a mirror is there for other machines
    admin_listen: Address = Address("127.0.0.1", 5001)
    admin_token: Secret = Secret()
    admin_token_file: str = ""
    # 0: one door a core, at most 4. One door shares its process with the hub, several have processes of their own.
    workers: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    shutdown_grace: Duration = Duration(30)


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[log]`: `info` has one line a request, `warning` none; `auto` is text on a terminal, else JSON."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[store]`: where content lies, how much of the file system it may take, and what goes when.

    `low_mark` is of `size`: where eviction stops. What was not used for `unused_for` goes even where there is room.
    """

    path: Path = Path("layover-data")
    size: Size = Size(0.8, is_share=True)
    low_mark: Size = Size(0.9, is_share=True)
    min_free: Size = Size(0.05, is_share=True)
    unused_for: Duration = Duration("inf")


class Fleet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[fleet]`: the Redis that replicas share, and who this one is among them; without a URL it is alone."""

    redis_url: RedisUrl = RedisUrl()
    redis_url_file: str = ""
    region: Region = Region("local")
    replica: str = ""
    advertise_url: Origin = Origin()
    secret: Secret = Secret()
    secret_file: str = ""
    min_copies: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 1

    @property
    def is_shared(self) -> bool:
        """Whether there is a fleet."""
        return bool(self.redis_url or self.redis_url_file)


class FreshnessRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of `[[freshness.rules]]`: a glob over upstream/repository:tag, and the time to live of what it matches."""

    match: str
    ttl: Duration


class Freshness(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[freshness]`: how long a tag's state is believed, how long a pull waits for a newer one, and what stands in."""

    tag_ttl: Duration = Duration(300)
    revalidate_timeout: Duration = Duration(1)
    stale_if_error: Duration = Duration("inf")
    negative_ttl: Duration = Duration(5)
    on_deleted: Literal["refuse", "serve"] = "refuse"
    rules: tuple[FreshnessRule, ...] = ()


class Prefetch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[prefetch]`: whether what a manifest refers to is brought in ahead, and of an index for which platforms.

    No platforms are those that were seen being pulled.
    """

    enabled: bool = True
    platforms: tuple[Platform, ...] = ()


class Access(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[access]`: globs over upstream/repository; deny beats allow."""

    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole configuration."""

    server: Server = Server()
    log: Log = Log()
    store: Store = Store()
    fleet: Fleet = Fleet()
    freshness: Freshness = Freshness()
    prefetch: Prefetch = Prefetch()
    access: Access = Access()
    upstreams: Upstreams = Upstreams()


# Key → the values that ask nothing of the feature that is to come: its defaults; they are accepted, others are not yet.
PLANNED: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "server.tls.certificate": ("",),
        "server.tls.key": ("",),
        "server.tls.key_file": ("",),
        "server.tls.client_ca": ("",),
        "store.verify_every": ("30d",),
        "access.anonymous": (True,),
        "access.htpasswd": ("",),
        "access.issuers": ([],),
    }
)
# The policies for private repositories that come with client access.
PLANNED_PRIVATE = frozenset({"authenticated", "upstream"})
