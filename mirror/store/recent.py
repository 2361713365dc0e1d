"""Bounded memory in front of the disk."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """A mapping that forgets its oldest entries once their weights add up to more than `bound`."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._weight = 0
        # A plain dict looks for its oldest entry past all that were dropped before.
        self._entries: OrderedDict[str, tuple[Value, int]] = OrderedDict()

    def get(self, key: str) -> Value | None:
        """Return the value under `key`, None if there is none."""
        found = self._entries.get(key)
        return None if found is None else found[0]

    def put(self, key: str, value: Value, weight: int = 1) -> None:
        """Remember `value`."""
        self.drop(key)
        self._entries[key] = (value, weight)
        self._weight += weight
        while self._weight > self._bound:
            self.drop(next(iter(self._entries)))

    def drop(self, key: str) -> None:
        """Forget what is under `key`."""
        found = self._entries.pop(key, None)
        if found is not None:
            self._weight -= found[1]
