"""Pins: what must never be evicted, as rules about names, and the digests that follow from them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mirror.config import Upstreams
from mirror.hub.contents import contents, manifests_of
from mirror.hub.selection import Selection, SelectionError, select
from mirror.oci.digest import Digest
from mirror.store import Shelf, Store
from mirror.store.records import Carried
from mirror.store.shelf import Record

# Whoever pulls an image moves several rows at once.
_PAUSE_SECONDS = 0.2


class Pin(NamedTuple):
    """A rule: what it names is pinned with everything below it, wherever its tags move. `at` is fleet time."""

    what: str
    at: float


class Pins:
    """The rules that hold, and by `in` whether a digest is pinned by any; that lags behind a new one by a moment."""

    def __init__(self, store: Store, upstreams: Upstreams) -> None:
        self._store = store
        self._upstreams = upstreams
        self._rules: Mapping[str, Selection] = {}
        # As hashes: a pin may be of all there is. Two with one hash only keep a digest that might have gone.
        self._digests: frozenset[int] = frozenset()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __contains__(self, digest: object) -> bool:
        return hash(digest) in self._digests

    @property
    def all(self) -> list[Pin]:
        """Every pin, by name."""
        orders = sorted(self._store.orders.values(), key=lambda order: order.what)
        return [Pin(order.what, order.at) for order in orders if order.verb == "pin"]

    def by(self, repository: str, tag: str | None, digest: Digest) -> list[str]:
        """Return which pins name a digest as it stands under a repository, under a tag if that is given."""
        return [
            what
            for what, rule in self._rules.items()
            if rule.has_digest(repository, digest) or (tag is not None and rule.has_tag(repository, tag))
        ]

    async def start(self) -> None:
        """Find what is pinned, and go on doing so as pins and tags change."""
        await self.refresh()
        told = self._store.on_change

        def changed(rows: Mapping[str, Record | None]) -> None:
            told(rows)
            self.changed(rows)

        self._store.on_change = changed
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def changed(self, rows: Mapping[str, Record | None]) -> None:
        """Take note of rows that changed in the store."""
        if self._rules and any(self._concerns(key) for key in rows):
            self._changed.set()

    async def refresh(self) -> None:
        """Find what is pinned now."""
        self._rules = dict(self._selections(list(self._store.orders.values())))
        if not self._rules:
            self._digests = frozenset()
            return
        loop, rules = asyncio.get_running_loop(), list(self._rules.values())
        self._digests = await loop.run_in_executor(self._store.disk, _pinned, self._store.shelf, rules)

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self.refresh()
            await asyncio.sleep(_PAUSE_SECONDS)

    def _selections(self, orders: Sequence[Carried]) -> Iterator[tuple[str, Selection]]:
        for order in orders:
            if order.verb == "pin":
                try:
                    yield order.what, select(order.what, self._upstreams)
                except SelectionError:
                    continue  # of a release that knows more

    def _concerns(self, key: str) -> bool:
        """Say whether a row is a tag or a link of a repository that something is pinned of."""
        kind, name = key[:2], key[2:]
        if kind not in {"t:", "l:"}:
            return False
        repository = name.rpartition("@" if kind == "l:" else ":")[0]
        return any(rule.may_have(repository) for rule in self._rules.values())


def _pinned(shelf: Shelf, rules: Sequence[Selection]) -> frozenset[int]:
    found: set[int] = set()
    single = {str(rule.repository) for rule in rules if rule.repository is not None}
    wide = [rule for rule in rules if rule.repository is None]
    names = {name for name in shelf.repositories() if any(rule.may_have(name) for rule in wide)} if wide else set()
    for repository in names | single:
        links, tags = dict(shelf.links(repository)), shelf.tags(repository)
        named = {digest for digest in links if any(rule.has_digest(repository, digest) for rule in rules)}
        roots = {
            state.digest for tag, state in tags.items() if any(rule.has_tag(repository, tag) for rule in rules)
        } | (named & manifests_of(links))
        found.update(hash(digest) for digest in named | contents(shelf, roots).all)
    return frozenset(found)
