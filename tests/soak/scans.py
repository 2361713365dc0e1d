"""What lies in the stores, looked at again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.replica import Replica

_EVERY_SECONDS = 0.25
_METRIC_EVERY = 8


class Scan(NamedTuple):
    """What each store held, by digest with the bytes on disk, between two moments in seconds since the epoch."""

    begun: float
    ended: float
    stores: tuple[Mapping[str, int], ...]


class Scans:
    """Looks at all stores until the end of the context."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.scans: list[Scan] = []
        self.most: list[int] = [0] * len(replicas)
        """The most that content and partial files took in each store."""
        self.most_counted: list[int] = [0] * len(replicas)
        """The most that each replica said of itself."""
        self._replicas = replicas
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scans")

    def _run(self) -> None:
        turn = 0
        while not self._is_over.wait(_EVERY_SECONDS):
            begun = time.time()
            found = tuple(_content(replica.store) for replica in self._replicas)
            known = self.scans[-1].stores if self.scans else found
            # Most do not change between two looks: what is the same is kept once.
            stores = tuple(old if old == new else new for old, new in zip(known, found, strict=True))
            self.scans.append(Scan(begun, time.time(), stores))
            for place, held in enumerate(stores):
                taken = sum(held.values()) + _partial(self._replicas[place].store)
                self.most[place] = max(self.most[place], taken)
            if turn % _METRIC_EVERY == 0:
                for place, replica in enumerate(self._replicas):
                    counted = int(replica.metric("layover_store_bytes"))
                    self.most_counted[place] = max(self.most_counted[place], counted)
            turn += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()


def _content(store: Path) -> dict[str, int]:
    found = {}
    for folder in (store / "content" / "sha256").glob("*"):
        for path in folder.iterdir():
            try:
                found[f"sha256:{path.name}"] = path.stat().st_blocks * 512
            except FileNotFoundError:
                continue
    return found


def _partial(store: Path) -> int:
    taken = 0
    for path in (store / "partial").glob("*.data"):
        try:
            taken += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return taken
