"""How the registry fails, when it is told to."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Faults:
    """Every fault; none by default. Offsets and sizes in bytes."""

    hang: bool = False
    """Connections are accepted, requests never answered."""
    limited: bool = False
    """Every request is answered 429."""
    cut: int = 0
    """Every answer with a blob ends after so many bytes; 0: whole."""
    corrupt: bool = False
    """The byte in the middle of every blob is wrong."""
    stalls: list[int] = field(default_factory=list)
    """The answer that first comes to one of these offsets of a blob stands still there; each only once."""
    stall_seconds: float = 20.0
    """For how long."""

    def stall_within(self, start: int, stop: int) -> int | None:
        """Return the first offset in start..stop-1 at which to stand still, and forget it."""
        found = min((offset for offset in self.stalls if start <= offset < stop), default=None)
        if found is not None:
            self.stalls.remove(found)
        return found
