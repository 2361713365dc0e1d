"""How content was used."""

from __future__ import annotations

from typing import NamedTuple


class Use(NamedTuple):
    """How often something was used, when last, in seconds since the epoch, and whether a client still reads it.

    `times` is 0 where nothing but the reading went on.
    """

    times: int
    last: float
    is_open: bool = False

    def merged(self, other: Use | None) -> Use:
        """Return both uses as one."""
        if other is None:
            return self
        return Use(self.times + other.times, max(self.last, other.last), self.is_open or other.is_open)
