"""A registry with repositories that its members alone may pull, and every kind of request for one of their images."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mirror.app import HubApp, Pools
from mirror.config import Settings, StoreSettings, Upstreams
from mirror.config.settings import Server
from mirror.config.units import Address
from mirror.hub import LocalHub
from mirror.oci.reference import Repository
from mirror.store import Verdict
from tests.conformance.wire import Answer, Door, assert_error
from tests.replica import Replica
from tests.store.stock import opened
from tests.upstream import Image, Upstream

USER = "robot"
SECRET = "swordfish-4711"
TAG = "1"
# A tag that is never fresh, so that each pull of it asks the upstream.
EXPIRED = "expired"
_RANGE = {"Range": "bytes=10-19"}
FRESHNESS = {
    "LAYOVER_FRESHNESS__TAG_TTL": "1h",
    "LAYOVER_FRESHNESS__RULES": f'[{{"match": "*:{EXPIRED}", "ttl": "1ms"}}]',
}


@dataclass(frozen=True)
class Kind:
    """A kind of request: its method, what it asks for, and the headers that it sends."""

    method: str
    what: str

    def target(self, image: Image) -> str:
        """Return the path for an image."""
        paths = {
            "tag": f"manifests/{TAG}",
            "expired tag": f"manifests/{EXPIRED}",
            "digest": f"manifests/{image.index.digest}",
            "blob": f"blobs/{image.layers[0].digest}",
            "range": f"blobs/{image.layers[0].digest}",
            "tags": "tags/list",
            "referrers": f"referrers/{image.index.digest}",
        }
        return f"/v2/{image.repository}/{paths[self.what]}"

    def ask(self, replica: Replica, image: Image) -> Answer:
        """Send such a request to a replica."""
        return Door(replica.port).ask(self.method, self.target(image), _RANGE if self.what == "range" else {})

    @property
    def slug(self) -> str:
        """What can stand in a repository's name."""
        return str(self).lower().replace(" ", "-")

    def __str__(self) -> str:
        return f"{self.method} {self.what}"


KINDS = (
    *(Kind(method, what) for what in ("tag", "expired tag", "digest", "blob") for method in ("GET", "HEAD")),
    *(Kind("GET", what) for what in ("range", "tags", "referrers")),
)
BY_TAG, BY_DIGEST, BLOB = (Kind("GET", what) for what in ("tag", "digest", "blob"))


def guard(upstream: Upstream, private: Iterable[str] = ()) -> None:
    """Have a registry ask for tokens, and give those for `private` repositories to its one member alone."""
    upstream.dials.auth = "bearer"
    upstream.dials.users = {USER: SECRET}
    upstream.dials.private = set(private)


def push(upstream: Upstream, repository: str) -> Image:
    """Push an image under both tags."""
    seed = zlib.crc32(repository.encode())
    image = upstream.push_image(repository, TAG, ["linux/amd64"], [3000], seed, raw=True)
    upstream.push_manifest(repository, EXPIRED, upstream.content(image.index.digest), image.index.media_type)
    return image


def replica(
    store: Path, upstream: Upstream, policy: str = "refuse", *, member: bool = True, settings: Mapping[str, str] = {}
) -> Replica:
    """Return a replica in front of the registry, as its member or as nobody."""
    account = {"username": USER, "password": SECRET} if member else {}
    table = {"url": upstream.url, "private": policy, **account}
    return Replica(store, upstreams={"docker.io": table}, settings={**FRESHNESS, **settings})


def pull_all(running: Replica, image: Image) -> list[int]:
    """Ask for everything of an image, and return the statuses."""
    return [kind.ask(running, image).status for kind in KINDS]


def assert_right(upstream: Upstream, image: Image, kind: Kind, answer: Answer) -> None:
    """Check that what a client was given is what the registry has."""
    assert answer.status == (206 if kind.what == "range" else 200), answer.body[:500]
    if kind.method == "HEAD":
        return
    if kind.what == "tags":
        assert set(answer.document["tags"]) == {TAG, EXPIRED}
    elif kind.what == "referrers":
        assert answer.document["manifests"] == []
    elif kind.what == "range":
        assert answer.body == upstream.content(image.layers[0].digest)[10:20]
    else:
        is_blob = kind.what == "blob"
        assert answer.body == upstream.content(image.layers[0].digest if is_blob else image.index.digest)


def assert_denied(image: Image, kind: Kind, answer: Answer) -> None:
    """Check that a client was refused, and told why."""
    if kind.method == "HEAD":
        assert answer.status == 403
        return
    assert_error(answer, 403, "DENIED")
    message = answer.document["errors"][0]["message"]
    assert message.startswith(f"docker.io/{image.repository} ")
    assert message.endswith('this mirror does not serve private repositories (upstreams."docker.io".private)')


def asked_as_nobody(upstream: Upstream, repository: str) -> list[tuple[str, str]]:
    """Return method and path below the repository of each request that came with a token for anybody."""
    base = f"/v2/{repository}/"
    found = []
    for each in upstream.counters.headers:
        scheme, _, token = each.headers.get("Authorization", "").partition(" ")
        if each.path.startswith(base) and scheme == "Bearer" and not upstream._registry.tokens.user(token):
            found.append((each.method, each.path.removeprefix(base)))
    return found


def judge(store: Path, *verdicts: tuple[Image, bool, float]) -> None:
    """Write to the store of a replica that does not run which images are private, and how many seconds ago that was."""

    async def write() -> None:
        async with opened(store) as open_store:
            for image, is_private, age in verdicts:
                open_store.judge(Repository("docker.io", image.repository), Verdict(is_private, time.time() - age))

    asyncio.run(write())


@asynccontextmanager
async def hub(store: Path, table: Mapping[str, str]) -> AsyncIterator[LocalHub]:
    """Run a hub in this process, in front of an upstream configured by `table`."""
    settings = Settings(
        server=Server(admin_listen=Address("127.0.0.1", 0)),
        store=StoreSettings(path=store),
        upstreams=Upstreams({"docker.io": table}),
    )
    pools = Pools()
    app = HubApp(settings, pools)
    await app.start()
    try:
        yield app.hub
    finally:
        await app.stop()
        pools.close()
