"""Purges: what one takes, and what is under way while it happens, which must not bring it back. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.records import Entry, TagDropped, Unlinked

# As many as may be ordered while one transfer of a manifest goes on; of older ones the names alone are remembered.
_MOST_RECENT = 64
_MOST_IN_AN_ENTRY = 500


class Fallen(NamedTuple):
    """What a purge takes: tags and links by repository (an upstream's name stands for any of its), and content.

    Content goes in the order in which it is named.
    """

    tags: Mapping[str, Collection[Tag]]
    links: Mapping[str, Collection[Digest]]
    content: Collection[Digest]

    def where(self, holds: Callable[[str, Tag | Digest], bool]) -> Fallen:
        """Return it with those tags and links alone of which something holds."""
        tags = {name: [each for each in some if holds(name, each)] for name, some in self.tags.items()}
        links = {name: [each for each in some if holds(name, each)] for name, some in self.links.items()}
        return Fallen(tags, links, self.content)

    def entries(self) -> Iterator[Entry]:
        """Yield what the journal has to say of it."""
        for repository, tags in self.tags.items():
            yield from (TagDropped(repository, tag) for tag in tags)
        for repository, digests in self.links.items():
            some = sorted(digests)
            for first in range(0, len(some), _MOST_IN_AN_ENTRY):
                yield Unlinked(repository, tuple(some[first : first + _MOST_IN_AN_ENTRY]))


class Purge(NamedTuple):
    """A purge that was ordered at a time of this replica's own clock: which images it names, and what it took."""

    names: Callable[[str], bool]
    at: float
    took: Callable[[str, Digest], bool]


class Purges:
    """The purges of this run, for whatever began before one and ends after it."""

    def __init__(self) -> None:
        self._recent: deque[Purge] = deque(maxlen=_MOST_RECENT)
        self.count = 0

    def add(self, purge: Purge) -> None:
        """Note that one is carried out now."""
        self._recent.append(purge)
        self.count += 1

    def last(self, repository: Repository, tag: Tag) -> float:
        """Return when a tag was last purged, in seconds since the epoch; 0 if it was not."""
        name = f"{repository}:{tag}"
        return max((each.at for each in self._recent if each.names(name)), default=0.0)

    def took(self, repository: Repository, reference: Tag | Digest, since: int) -> bool:
        """Say whether something was purged since `count` was `since`; who asks for more than is remembered: yes."""
        new = self.count - since
        if new > len(self._recent):
            return True
        recent = list(self._recent)[len(self._recent) - new :]
        if isinstance(reference, Digest):
            return any(each.took(str(repository), reference) for each in recent)
        return any(each.names(f"{repository}:{reference}") for each in recent)
