"""A store of any number of objects, laid down as files: `python -m tests.store.large PATH OBJECTS`.

A quarter of the objects are manifests, each with a tag, a config and two layers of its own, a dozen in a repository.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mirror.oci.digest import Digest
from mirror.oci.media_types import OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.store import Content, Link, Shelf, TagState
from mirror.store.journal import Journal
from mirror.store.records import Entry, Linked, TagSet
from mirror.store.recovery import Recovery

UPSTREAM = "docker.io"
_BLOBS = 3
_IN_A_REPOSITORY = 12
_TYPES = ("application/vnd.oci.image.config.v1+json", *["application/vnd.oci.image.layer.v1.tar+gzip"] * (_BLOBS - 1))


class Image(NamedTuple):
    """One manifest with its blobs, all told by its number."""

    repository: Repository
    tag: Tag
    body: bytes
    blobs: tuple[bytes, ...]

    @classmethod
    def numbered(cls, number: int) -> Image:
        """Return the image of a number."""
        group, place = divmod(number, _IN_A_REPOSITORY)
        blobs = tuple(b"blob %d of image %d\n" % (each, number) for each in range(_BLOBS))
        found = [
            {"mediaType": kind, "digest": Digest.of(blob), "size": len(blob)}
            for kind, blob in zip(_TYPES, blobs, strict=True)
        ]
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": found[0], "layers": found[1:]}
        return cls(
            Repository(UPSTREAM, f"team{group % 97}/app{group}"), Tag(f"v{place}"), json.dumps(document).encode(), blobs
        )

    @property
    def digest(self) -> Digest:
        """The manifest's digest."""
        return Digest.of(self.body)

    @property
    def paths(self) -> tuple[str, str]:
        """The manifest's paths on the data port: by tag, and by digest."""
        base = f"/v2/{self.repository.name}/manifests/"
        return f"{base}{self.tag}", f"{base}{self.digest}"

    def entries(self, checked_at: float) -> Iterator[Entry]:
        """Yield what the journal says once the image was pulled."""
        name, digest, size = str(self.repository), self.digest, len(self.body)
        yield Linked(name, digest, Link(OCI_MANIFEST, False, size))
        yield TagSet(name, self.tag, TagState(digest, OCI_MANIFEST, size, checked_at))


def images(objects: int) -> Iterator[Image]:
    """Yield the images that make up so many objects."""
    return map(Image.numbered, range(objects // (1 + _BLOBS)))


def lay(path: Path, objects: int, *, with_index: bool = True) -> None:
    """Make a store at `path`; its tags were checked just now. Without its index, the first to open it builds it."""
    shutil.rmtree(path, ignore_errors=True)
    for name in ("content", "partial", "index"):
        (path / name).mkdir(parents=True)
    (path / "format").write_text('{"version":1}')
    content = Content(path / "content")
    for number in range(256):
        (path / "content" / "sha256" / f"{number:02x}").mkdir(parents=True)
    entries: list[Entry] = []
    now = time.time()
    for image in images(objects):
        entries += image.entries(now)
        for data in (image.body, *image.blobs):
            descriptor = os.open(content.path(Digest.of(data)), os.O_WRONLY | os.O_CREAT, 0o644)
            os.write(descriptor, data)
            os.close(descriptor)
    journal = Journal(path / "journal")
    journal.append(entries)
    if with_index:
        shelf = Shelf(path, remembers_tags=True)
        recovery = Recovery(journal, shelf, path)
        recovery.open()
        for _ in recovery.steps():
            pass
        shelf.close()
    journal.close()


def main() -> None:
    """Make a store as the command line asks, and say how long that took."""
    parser = argparse.ArgumentParser(prog="python -m tests.store.large", description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("objects", type=int)
    options = parser.parse_args()
    started = time.monotonic()
    lay(options.path, options.objects)
    print(f"{options.objects} objects in {time.monotonic() - started:.1f} s")  # noqa: T201 - it is the command's answer


if __name__ == "__main__":
    main()
