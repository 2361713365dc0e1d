"""Who holds what, and who may give it up."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

from mirror.fleet import scripts
from mirror.fleet.keys import digest_key
from mirror.fleet.link import Away
from mirror.fleet.membership import Membership
from mirror.fleet.outbox import Outbox
from mirror.fleet.protocol import Leave, Sibling, Wish
from mirror.oci.digest import Digest

HOLDERS_SECONDS = 3 * 86_400
"""For how long a holder is remembered that does not tell again what it holds."""

_SOON_SECONDS = 0.05
_BATCH = 250
_RELEASES = 100
_MOST_PENDING = 100_000
# A fail-over may lose what Redis had acknowledged shortly before: it is told again.
_RECENT_SECONDS = 15.0
_MOST_RECENT = 20_000
_Item = TypeVar("_Item")


class _Word(NamedTuple):
    """Of which digest it is told, whether that it is held or filled, and by whom; "" is this replica."""

    digest: Digest
    is_lease: bool
    identity: str


class Copies:
    """What replicas hold."""

    def __init__(self, membership: Membership) -> None:
        self.outbox = Outbox(self._flush, _SOON_SECONDS)
        self.has_forgotten = False
        self._fleet = membership
        self._pending: dict[_Word, bytes] = {}
        self._recent: deque[tuple[float, _Word, bytes]] = deque(maxlen=_MOST_RECENT)
        self._promised: dict[Digest, float] = {}

    def tell(self, digest: Digest, *, is_held: bool, identity: str = "") -> None:
        """Tell soon whether a replica, this one if none is named, has a digest."""
        self._put(_Word(digest, False, identity), b"+" if is_held else b"-")

    async def tell_now(self, digest: Digest, *, is_held: bool) -> None:
        """Tell at once that this replica fills a digest no more, and whether it holds it; soon, if that cannot be."""
        words = [(_Word(digest, True, ""), b"~")]
        if is_held:
            words.insert(0, (_Word(digest, False, ""), b"+"))
            self._pending.pop(words[0][0], None)
        try:
            await self._send(words)
        except Away:
            for word, what in words:
                self._put(word, what)

    def tell_again(self) -> None:
        """Tell again what was told last: Redis may have lost it."""
        since = time.monotonic() - _RECENT_SECONDS
        self._pending = {word: what for at, word, what in self._recent if at > since} | self._pending
        self.outbox.ring()

    async def holders(self, digest: Digest) -> Sequence[Sibling]:
        """See `Coordinator`."""
        try:
            (seats,) = await self._fleet.ask(scripts.COPIES, self._fleet.seat, 1, digest_key(digest))
        except Away:
            return ()
        return await self.siblings_at(seats)

    async def siblings_at(self, seats: Sequence[bytes]) -> tuple[Sibling, ...]:
        """Return who has these seats; those that came a moment ago are heard of first."""
        if any(self._fleet.at(seat) is None for seat in seats):
            await self._fleet.refresh()
        return tuple(found for seat in seats if (found := self._fleet.at(seat)) is not None)

    async def copies(self, digests: Sequence[Digest]) -> Mapping[Digest, int]:
        """See `Coordinator`."""
        found: dict[Digest, int] = {}
        with contextlib.suppress(Away):
            for some in chunks(digests, _BATCH):
                counts = await self._fleet.ask(scripts.COPIES, self._fleet.seat, 0, *map(digest_key, some))
                found.update((digest, count) for digest, count in zip(some, counts, strict=True) if count >= 0)
        return found

    async def release(self, wishes: Sequence[Wish]) -> Mapping[Digest, Leave]:
        """See `Coordinator`."""
        leaves = {wish.digest: Leave(may_go=False) for wish in wishes if self.is_promised(wish.digest)}
        free = [wish for wish in wishes if wish.digest not in leaves]
        for some in chunks(free, _RELEASES):
            pairs = [part for wish in some for part in (digest_key(wish.digest), str(max(0, wish.least)))]
            try:
                answers = await self._fleet.ask(scripts.RELEASE, self._fleet.seat, self._fleet.keepers(), *pairs)
            except Away:
                leaves.update({wish.digest: Leave(may_go=True) for wish in some})
                continue
            for wish, (may_go, copies, seat) in zip(some, answers, strict=True):
                keeper = next(iter(await self.siblings_at([seat] if seat else ())), None)
                is_safe = keeper is not None or not seat
                leaves[wish.digest] = self._leave(wish.digest, keeper, copies, may_go=bool(may_go), is_safe=is_safe)
        return leaves

    async def hold(self, digests: Sequence[Digest], seconds: float) -> None:
        """See `Coordinator`."""
        until = time.monotonic() + seconds
        for digest in digests:
            self._promised[digest] = max(until, self._promised.get(digest, 0.0))

    def is_promised(self, digest: Digest) -> bool:
        """Tell whether this replica promised to keep a digest for now."""
        now = time.monotonic()
        for old in [each for each in islice(self._promised, 8) if self._promised[each] <= now]:
            del self._promised[old]
        return self._promised.get(digest, 0.0) > now

    def _leave(self, digest: Digest, keeper: Sibling | None, copies: int, *, may_go: bool, is_safe: bool) -> Leave:
        """Turn a grant down where nobody knows its keeper, or it was promised since it was asked for."""
        if may_go and (self.is_promised(digest) or not is_safe):
            self.tell(digest, is_held=True)
            may_go = False
        if not may_go:
            return Leave(may_go=False, copies=copies)
        word = _Word(digest, False, "")
        self._pending.pop(word, None)
        self._recent.append((time.monotonic(), word, b"-"))
        return Leave(may_go=True, keeper=keeper, copies=copies)

    def _put(self, word: _Word, what: bytes) -> None:
        self._pending[word] = what
        if len(self._pending) > _MOST_PENDING:
            self._pending.clear()
            self.has_forgotten = True
        self.outbox.ring()

    async def _flush(self) -> None:
        while self._pending:
            some = list(islice(self._pending.items(), _BATCH))
            await self._send(some)
            for word, what in some:
                if self._pending.get(word) is what:
                    del self._pending[word]

    async def _send(self, words: Sequence[tuple[_Word, bytes]]) -> None:
        now = time.monotonic()
        parts: list[str | bytes] = []
        for word, what in words:
            seat = self._fleet.seat_of(word.identity or self._fleet.me.identity)
            if seat:
                parts += (what, digest_key(word.digest), seat)
            if not word.identity and not word.is_lease:
                self._recent.append((now, word, what))
        if parts:
            await self._fleet.ask(scripts.TELL, HOLDERS_SECONDS * 1000, *parts)


def chunks(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    """Yield all of them, at most so many at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
