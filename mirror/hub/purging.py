"""Purging: what a selection takes from the store, found without changing anything, and then done."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mirror.hub.contents import contents, manifests_of
from mirror.hub.hub import Services
from mirror.hub.selection import Selection
from mirror.observe.audit import Evictions
from mirror.oci.digest import Digest
from mirror.oci.reference import Tag
from mirror.store import Shelf, Store
from mirror.store.purges import Fallen, Purge


class Purged(NamedTuple):
    """How much a purge took: tags, manifests and blobs of the repositories, and bytes of the disk."""

    tags: int = 0
    digests: int = 0
    bytes: int = 0


class Purging:
    """Carries purges out here, one at a time."""

    def __init__(self, store: Store, services: Services, evictions: Evictions, lost: Callable[[Digest], None]) -> None:
        """Have each of `services` forget what is purged, also what is under way; `lost` hears of content that went."""
        self._store = store
        self._services = services
        self._evictions = evictions
        self._lost = lost

    async def purge(self, selection: Selection, ordered_at: float) -> Purged:
        """Forget what is selected, and whatever would bring it back.

        What was learnt of a tag after `ordered_at` (`time.time`) is believed again.

        Raises:
            OSError: the disk is full or broken.
        """
        loop = asyncio.get_running_loop()
        fallen = await loop.run_in_executor(self._store.disk, find, self._store.shelf, selection)
        links = {repository: frozenset(digests) for repository, digests in fallen.links.items()}

        def took(repository: str, digest: Digest) -> bool:
            return selection.has_digest(repository, digest) or digest in links.get(repository, ())

        self._store.purges.add(Purge(selection.matches, ordered_at, took))
        services = self._services
        services.manifests.forget(selection.may_have)
        services.tags.forget(selection.may_have)
        services.prefetch.forget(took)
        services.blobs.forget(took)
        gone = await self._store.purge(fallen)
        for digest in gone:
            self._lost(digest)
        await services.listings.forget(selection.may_have)
        await loop.run_in_executor(self._store.disk, self._evictions.purged, gone)
        taken = {digest for repository, digests in links.items() if "/" in repository for digest in digests}
        return Purged(sum(map(len, fallen.tags.values())), len(taken), sum(gone.values()))

    async def drop_tags(self) -> None:
        """Forget every tag: nobody can tell which of them were purged.

        Raises:
            OSError: the disk is full or broken.
        """
        shelf = self._store.shelf

        def tags() -> dict[str, list[Tag]]:
            return {repository: list(shelf.tags(repository)) for repository in shelf.repositories()}

        found = await asyncio.get_running_loop().run_in_executor(self._store.disk, tags)
        await self._store.purge(Fallen(found, {}, ()))


def find(shelf: Shelf, selection: Selection) -> Fallen:
    """Return what a purge takes. Blocks; any thread.

    What is named goes, and with a tag or manifest all below it that nothing else in the repository refers to. Content
    goes once it is linked nowhere.
    """
    tags: dict[str, set[Tag]] = {}
    links: dict[str, set[Digest]] = defaultdict(set)
    manifests: set[Digest] = set()
    for repository in _repositories(shelf, selection):
        found = _of_repository(shelf, repository, selection)
        if found.tags:
            tags[repository] = found.tags
        if found.digests:
            links[repository] = found.digests
            manifests |= found.manifests
    candidates = set().union(*links.values())
    linked: dict[str, set[Digest]] = defaultdict(set)
    for repository, digest in shelf.linking(candidates):
        if digest not in links.get(repository, ()):
            linked[repository.partition("/")[0]].add(digest)
    for repository, digests in list(links.items()):
        upstream = repository.partition("/")[0]
        links[upstream] |= digests - linked[upstream]
    content = candidates.difference(*linked.values())
    # What a manifest leads to can be found only while that is there: it goes after all below it.
    below = {each: len(contents(shelf, [each]).manifests) for each in content & manifests}
    return Fallen(tags, links, sorted(content, key=lambda each: below.get(each, 0)))


class _Found(NamedTuple):
    """What goes of one repository, the manifests among it."""

    tags: set[Tag]
    digests: set[Digest]
    manifests: set[Digest]


def _repositories(shelf: Shelf, selection: Selection) -> Iterator[str]:
    if selection.repository is not None:
        yield str(selection.repository)
    else:
        yield from filter(selection.may_have, shelf.repositories())


def _of_repository(shelf: Shelf, repository: str, selection: Selection) -> _Found:
    tags, links = shelf.tags(repository), dict(shelf.links(repository))
    named = {digest for digest in links if selection.has_digest(repository, digest)}
    gone = {tag for tag, state in tags.items() if selection.has_tag(repository, tag) or state.digest in named}
    manifests = manifests_of(links)
    falling = contents(shelf, {tags[tag].digest for tag in gone} | (named & manifests)).all | named
    if not falling:
        return _Found(set(), set(), set())
    staying = {state.digest for tag, state in tags.items() if tag not in gone} | (manifests - falling)
    kept = contents(shelf, staying, without=named).all
    going = {*(falling - kept), *named}
    return _Found(gone, going, going & manifests)
