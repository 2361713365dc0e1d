"""A store with a known stock: what was put in, and whether all of it is still there."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path

from mirror.config import StoreSettings, Upstreams
from mirror.config.units import Size
from mirror.oci.digest import Digest
from mirror.oci.media_types import OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.store import Link, Store, TagState

REPOSITORY = Repository("docker.io", "library/app")
OTHER = Repository("docker.io", "library/other")
INDEXES = ("records", "repositories")
NO_CREDENTIALS = Upstreams()
_LOOKS = 4000
CHECKED_AT = 1_700_000_000.0


@asynccontextmanager
async def opened(path: Path, upstreams: Upstreams = NO_CREDENTIALS) -> AsyncIterator[Store]:
    """Open the store at `path`, of content of `upstreams`, bounded by 1 GiB, and close it at the end."""
    disk = ThreadPoolExecutor(2, "disk")
    settings = StoreSettings(path=path, size=Size(2**30, is_share=False), min_free=Size(0, is_share=False))
    store = Store(settings, upstreams, disk)
    try:
        store.open()
        store.start()
        for _ in range(_LOOKS):
            if store.is_settled and store.room.is_counted:
                break
            await asyncio.sleep(0.005)
        yield store
        await store.close()
    finally:
        disk.shutdown()


class Image:
    """The content of one tag: a manifest with a config and a layer, all told by its number."""

    def __init__(self, number: int) -> None:
        self.tag = Tag(f"v{number}")
        self.config = f"config {number}".encode()
        self.layer = f"layer {number} ".encode() * 50
        self.body = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"digest": Digest.of(self.config), "size": len(self.config), "mediaType": "text/plain"},
                "layers": [{"digest": Digest.of(self.layer), "size": len(self.layer), "mediaType": "text/plain"}],
            }
        ).encode()
        self.digest = Digest.of(self.body)

    @property
    def blobs(self) -> Iterator[tuple[Digest, bytes]]:
        """Yield each blob with its digest."""
        for data in (self.config, self.layer):
            yield Digest.of(data), data

    @property
    def state(self) -> TagState:
        """Where the tag points."""
        return TagState(self.digest, OCI_MANIFEST, len(self.body), CHECKED_AT)

    def put(self, store: Store) -> None:
        """Do to the store what a pull of the image does."""
        store.keep_manifest(REPOSITORY, self.digest, OCI_MANIFEST, self.body)
        store.set_tag(REPOSITORY, self.tag, self.state)
        for digest, data in self.blobs:
            store.link(REPOSITORY, digest, Link(None, True, len(data)))
            put_blob(store, digest, data)

    def missing(self, store: Store) -> list[str]:
        """Return what of the image can no longer be served, by tag or by digest."""
        shelf = store.shelf
        link = shelf.link(REPOSITORY, self.digest)
        facts = {
            "tag": shelf.tag(REPOSITORY, self.tag) == self.state,
            "manifest": shelf.manifest(self.digest) == self.body,
            "link": link is not None and link.media_type == OCI_MANIFEST and not link.is_blob,
        }
        for digest, data in self.blobs:
            blob = shelf.link(REPOSITORY, digest)
            facts[f"link of {data[:9]!r}"] = blob is not None and blob.is_blob and blob.size == len(data)
            facts[f"link of {data[:9]!r} under the upstream"] = shelf.link(REPOSITORY.upstream, digest) is not None
            facts[f"{data[:9]!r}"] = shelf.content.read(digest) == data
        return [f"{self.tag}: {name}" for name, holds in facts.items() if not holds]


def put_blob(store: Store, digest: Digest, data: bytes) -> None:
    """Put a blob in, as a fill does."""
    assert store.room.claim(len(data))
    partial = store.partial(digest, "origin")
    partial.size = len(data)
    partial.write(0, [data])
    partial.added(0, len(data))
    store.room.spend(len(data))
    partial.publish(store.content)
    partial.close()


def missing(store: Store, images: list[Image]) -> list[str]:
    """Return what of all `images` can no longer be served."""
    found = [each for image in images for each in image.missing(store)]
    return found if str(REPOSITORY) in store.shelf.repositories() else [*found, "the repository's name"]


async def stocked(path: Path, count: int) -> list[Image]:
    """Make a store with `count` images, its index in one file without a write-ahead log."""
    images = [Image(number) for number in range(count)]
    async with opened(path) as store:
        for image in images:
            image.put(store)
    for name in INDEXES:
        with closing(sqlite3.connect(path / "index" / name / "cache.db")) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return images


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, for at most ten seconds."""
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never held")
