"""Why pulls came out as they did: the last answer about each image that a door had to ask the hub for."""

from __future__ import annotations

import time
from typing import NamedTuple

import msgspec

from mirror.channel import ManifestFound
from mirror.observe.cache_status import Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Reference, Repository, Tag
from mirror.store import Shelf
from mirror.store.recent import Recent

_REMEMBERED = 4000
_MISSES = frozenset({Outcome.MISS, Outcome.JOINED})


class Pull(msgspec.Struct, frozen=True):
    """How a pull was answered `at`, in seconds since the epoch, and why so, in a sentence."""

    at: float
    outcome: str
    why: str


class Before(NamedTuple):
    """What was held of an image before the hub looked further."""

    digest: Digest | None
    is_linked: bool
    is_there: bool


class Pulls:
    """The last pulls that the hub heard of. Warm ones never reach it: last use tells of those."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._last: Recent[tuple[Repository, Reference], Pull] = Recent(_REMEMBERED)

    def last(self, repository: Repository, reference: Reference) -> Pull | None:
        """Return how an image, or a blob by its digest, was last answered by the hub."""
        return self._last.get((repository, reference))

    def before(self, repository: Repository, reference: Reference) -> Before:
        """Return what is held of an image now."""
        state = None if isinstance(reference, Digest) else self._shelf.tag(repository, reference)
        digest = reference if isinstance(reference, Digest) else None if state is None else state.digest
        if digest is None:
            return Before(None, is_linked=False, is_there=False)
        is_linked = self._shelf.link(repository, digest) is not None
        return Before(digest, is_linked, self._shelf.content.size(digest) is not None)

    def found(self, repository: Repository, reference: Reference, before: Before, found: ManifestFound) -> None:
        """Note that a manifest was given."""
        outcome = found.status.outcome
        if outcome is Outcome.STALE:
            why = f"the upstream could not be asked ({found.status.failure}): the last answer that is held was given"
        elif outcome is Outcome.REVALIDATED:
            why = "its time to live was over, and the upstream said that the tag has not moved"
        elif outcome in _MISSES:
            why = _miss(reference, before, found.digest)
        else:
            why = "it was held and fresh"
        self._note(repository, reference, str(outcome), why)

    def fetched(self, repository: Repository, digest: Digest, before: Before, outcome: Outcome) -> None:
        """Note that a blob had to be fetched."""
        if outcome in _MISSES:
            self._note(repository, digest, str(outcome), _miss(digest, before, digest))

    def failed(self, repository: Repository, reference: Reference, error: RegistryError) -> None:
        """Note that a pull failed."""
        outcome = "denied" if error.code is ErrorCode.DENIED else "negative" if error.status == 404 else "error"
        why = error.message if error.failure in {None, Failure.DELETED} else f"{error.message} ({error.failure})"
        self._note(repository, reference, outcome, why)

    def _note(self, repository: Repository, reference: Reference, outcome: str, why: str) -> None:
        self._last.put((repository, reference), Pull(time.time(), outcome, why))


def _miss(reference: Reference, before: Before, digest: Digest) -> str:
    if before.digest is None:
        return "the tag was not held: it was never pulled here, or was purged"
    if isinstance(reference, Tag) and before.digest != digest:
        return "the tag had moved to what was not held"
    if before.is_there and not before.is_linked:
        return "it was held, but not known to be of this repository"
    if before.is_linked:
        return "it was known, but its content was not held: not fetched yet, or evicted"
    return "it was not held: it was never pulled here, or was purged"
