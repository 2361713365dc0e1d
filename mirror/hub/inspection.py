"""What operators may know of what is held: the images, and of one of them what, where, since when and why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from mirror.config import Upstreams
from mirror.fleet import Coordinator
from mirror.hub.contents import Contents, children_of, contents, manifests_of
from mirror.hub.pins import Pins
from mirror.hub.pulls import Pull, Pulls
from mirror.hub.selection import Selection, SelectionError, select
from mirror.observe.audit import Evicted, Evictions
from mirror.oci.digest import Digest
from mirror.oci.errors import LayoverError
from mirror.oci.manifest import platforms
from mirror.oci.reference import Repository, Tag
from mirror.store import Shelf, Store, TagState
from mirror.store.freshness import Freshness

# A door notes a use just after the hub answered it; a later one was a hit that the hub never heard of.
_SLACK_SECONDS = 0.5
_MOST_SHOWN = 1000


class NotHeld(LayoverError):
    """Nothing is known of an image."""


class Image(msgspec.Struct, frozen=True):
    """An image that is held: a tag, or a manifest that no tag leads to.

    `bytes` of it are held, `missing` are not: layers that nobody pulled yet, or that were evicted. `last_used` in
    seconds since the epoch.
    """

    image: str
    digest: str
    bytes: int
    missing: int
    last_used: float | None
    is_pinned: bool


class Images(msgspec.Struct, frozen=True):
    """Images in the order of their names; `next` is what to ask for the rest with, if there is more."""

    images: list[Image]
    next: str | None = None


class Part(msgspec.Struct, frozen=True):
    """A manifest or blob of an image; `bytes` is None where nobody told it, `copies` are on other replicas."""

    digest: str
    kind: str
    bytes: int | None
    is_held: bool
    is_pinned: bool
    last_used: float | None
    copies: int | None
    last_pull: Pull | None = None
    evicted: Evicted | None = None


class Holder(msgspec.Struct, frozen=True):
    """Another replica that has the image's manifest."""

    label: str
    region: str
    url: str


class Report(msgspec.Struct, frozen=True):
    """All that is known of an image. Times are in seconds since the epoch.

    `fresh_until` is when its tag is asked about again, `purged_at` when it was last purged. `pinned_by` are pins that
    name it. `platforms` are those of an index of which all is held. `last_pull` is about its manifest, each part's
    about the part.
    """

    image: str
    is_held: bool
    digest: str | None
    media_type: str | None
    bytes: int
    missing: int
    checked_at: float | None
    fresh_until: float | None
    purged_at: float | None
    pinned_by: list[str]
    platforms: list[str]
    holders: list[Holder]
    last_pull: Pull | None
    parts: list[Part]


class _Root(NamedTuple):
    """An image of a repository by its name, and the manifest that it is."""

    name: str
    tag: Tag | None
    digest: Digest


class Inspection:
    """Answers questions about what is held, without any effect on it."""

    def __init__(
        self,
        store: Store,
        upstreams: Upstreams,
        freshness: Freshness,
        coordinator: Coordinator,
        pins: Pins,
        pulls: Pulls,
        evictions: Evictions,
    ) -> None:
        self._store = store
        self._upstreams = upstreams
        self._freshness = freshness
        self._coordinator = coordinator
        self._pins = pins
        self._pulls = pulls
        # When a tag was last purged, in fleet time, 0 if it was not.
        self.purged_at: Callable[[Repository, str], float] = lambda *_: 0.0
        self._evictions = evictions

    async def images(self, what: str, after: str, most: int) -> Images:
        """Return images that are held: of all if `what` is empty, those behind `after`, at most so many.

        Raises:
            SelectionError: `what` is no image, digest or glob.
        """
        selection = select(what or "*", self._upstreams)
        await self._store.usage.write()
        return await asyncio.get_running_loop().run_in_executor(
            self._store.disk, self._images, selection, after, min(max(most, 1), _MOST_SHOWN)
        )

    async def report(self, what: str) -> Report:
        """Return what is known of an image.

        Raises:
            SelectionError: `what` is no image.
            NotHeld: nothing is known of it.
        """
        selection = select(what, self._upstreams)
        if selection.reference is None:
            raise SelectionError(f"{what!r} is a glob: name one image, and see them all with ls")
        await self._store.usage.write()
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._store.disk, self._report, selection)
        known = [Digest(part.digest) for part in found.parts]
        copies = await self._coordinator.copies(known)
        digest = None if found.digest is None else Digest(found.digest)
        holders = [] if digest is None else await self._coordinator.holders(digest)
        parts = [msgspec.structs.replace(each, copies=copies.get(Digest(each.digest))) for each in found.parts]
        is_known = found.is_held or found.last_pull is not None or found.purged_at is not None or bool(holders)
        if not is_known and not any(each.evicted for each in parts):
            raise NotHeld(f"nothing is known of {selection.text} here")
        where = [Holder(each.label, each.region, each.url) for each in holders]
        return msgspec.structs.replace(found, parts=parts, holders=where)

    def _images(self, selection: Selection, after: str, most: int) -> Images:
        found: list[Image] = []
        shelf = self._store.shelf
        start = _repository_of(after)
        for repository in filter(selection.may_have, shelf.repositories()):
            if repository < start:
                continue
            for root in _roots(shelf, repository):
                if repository == start and root.name <= after:
                    continue
                is_meant = root.tag is not None and selection.has_tag(repository, root.tag)
                if not is_meant and not selection.has_digest(repository, root.digest):
                    continue
                if len(found) == most:
                    return Images(found, next=found[-1].image)
                found.append(self._image(root))
        return Images(found)

    def _image(self, root: _Root) -> Image:
        shelf = self._store.shelf
        held, missing = _sizes(shelf, contents(shelf, [root.digest]))
        return Image(
            root.name, root.digest, held, missing, shelf.last_use(root.digest), is_pinned=root.digest in self._pins
        )

    def _report(self, selection: Selection) -> Report:
        shelf = self._store.shelf
        repository = selection.repository or self._any_repository(selection)
        reference = selection.reference
        assert reference is not None
        state = shelf.tags(repository).get(reference) if isinstance(reference, Tag) else None
        digest = reference if isinstance(reference, Digest) else None if state is None else state.digest
        link = None if digest is None else shelf.stored_link(repository, digest)
        below = Contents(frozenset(), frozenset(), {})
        if digest is not None and (link is None or link.media_type is not None):
            below = contents(shelf, [digest])
        elif digest is not None:
            below = Contents(frozenset(), frozenset({digest}), {digest: None if link is None else link.size})
        held, missing = _sizes(shelf, below)
        tag = None if isinstance(reference, Digest) else reference
        kind = None if link is None else link.media_type
        return Report(
            image=selection.text,
            is_held=link is not None and digest is not None and shelf.content.size(digest) is not None,
            digest=digest,
            media_type=kind if state is None else state.media_type,
            bytes=held,
            missing=missing,
            checked_at=None if state is None else state.checked_at,
            fresh_until=self._fresh_until(repository, tag, state),
            purged_at=None if tag is None else self.purged_at(repository, tag) or None,
            pinned_by=[] if digest is None else self._pins.by(str(repository), tag, digest),
            platforms=[] if digest is None else _whole_platforms(shelf, digest),
            holders=[],
            last_pull=self._last_pull(repository, reference, digest),
            parts=[self._part(repository, each, below) for each in _in_order(digest, below)],
        )

    def _any_repository(self, selection: Selection) -> Repository:
        """Return a repository under which a digest is held that was named alone."""
        digest = selection.reference
        assert isinstance(digest, Digest)
        name = next((name for name, _ in self._store.shelf.linking({digest})), "/")
        host, _, path = name.partition("/")
        return Repository(host, path)

    def _fresh_until(self, repository: Repository, tag: Tag | None, state: TagState | None) -> float | None:
        if tag is None or state is None:
            return None
        until = state.checked_at + self._freshness.ttl(repository, tag)
        return until if until < 2**62 else None

    def _last_pull(self, repository: Repository, reference: Tag | Digest, digest: Digest | None) -> Pull | None:
        noted = self._pulls.last(repository, reference)
        used = None if digest is None else self._store.shelf.last_use(digest)
        if used is None or (noted is not None and used <= noted.at + _SLACK_SECONDS):
            return noted
        return Pull(used, "hit", "it was held and fresh")

    def _part(self, repository: Repository, digest: Digest, below: Contents) -> Part:
        shelf = self._store.shelf
        size = shelf.content.size(digest)
        return Part(
            digest=digest,
            kind="manifest" if digest in below.manifests else "blob",
            bytes=size if size is not None else below.sizes.get(digest),
            is_held=size is not None,
            is_pinned=digest in self._pins,
            last_used=shelf.last_use(digest),
            copies=None,
            last_pull=self._pulls.last(repository, digest),
            evicted=self._evictions.last(digest) if size is None else None,
        )


def _repository_of(image: str) -> str:
    return image.partition("@")[0] if "@" in image else image.rpartition(":")[0]


def _roots(shelf: Shelf, repository: str) -> Iterator[_Root]:
    """Yield the images of a repository in the order of their names. Blocks."""
    tags = shelf.tags(repository)
    below = contents(shelf, {state.digest for state in tags.values()}).manifests
    left = {
        each for each in manifests_of(dict(shelf.links(repository))) - below if shelf.content.size(each) is not None
    }
    children = {child.digest for each in left for child in children_of(shelf, each).manifests}
    found = [_Root(f"{repository}:{tag}", tag, state.digest) for tag, state in tags.items()]
    found += [_Root(f"{repository}@{each}", None, each) for each in left - children]
    yield from sorted(found)


def _sizes(shelf: Shelf, found: Contents) -> tuple[int, int]:
    """Return how many bytes of some content are held, and how many are known not to be."""
    held = missing = 0
    for digest in found.all:
        size = shelf.content.size(digest)
        if size is None:
            missing += found.sizes.get(digest) or 0
        else:
            held += size
    return held, missing


def _whole_platforms(shelf: Shelf, digest: Digest) -> list[str]:
    body = shelf.content.peek(digest)
    listed = () if body is None else platforms(body)
    return [str(each.platform) for each in listed if each.platform.is_known and _is_whole(shelf, each.digest)]


def _is_whole(shelf: Shelf, digest: Digest) -> bool:
    return all(shelf.content.size(each) is not None for each in contents(shelf, [digest]).all)


def _in_order(root: Digest | None, below: Contents) -> Sequence[Digest]:
    """Return manifests before blobs, and first of all the one that was named."""
    return sorted(below.all, key=lambda each: (each != root, each not in below.manifests, each))
