"""What is true for a while."""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Expiring(Generic[Key, Value]):
    """A mapping that forgets each entry after a time, and the oldest ones once there are too many."""

    def __init__(self, seconds: float, most: int) -> None:
        """Forget after `seconds`, and whatever is more than `most` entries."""
        self._seconds = seconds
        self._most = most
        self._entries: dict[Key, tuple[Value, float]] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._entries and self._entries[key][1] > time.monotonic()

    def get(self, key: Key) -> Value | None:
        """Return the value under `key`, None if there is none any more."""
        return self._entries[key][0] if key in self else None

    def put(self, key: Key, value: Value, seconds: float | None = None) -> None:
        """Remember `value`, for `seconds` if it has a time of its own."""
        self._entries.pop(key, None)
        while len(self._entries) >= self._most:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (value, time.monotonic() + (self._seconds if seconds is None else seconds))

    def drop(self, key: Key) -> None:
        """Forget what is under `key`."""
        self._entries.pop(key, None)
