"""Numbers as people read them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_AGES = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s"))


def size(amount: float | None) -> str:
    """Return bytes as in `1.5 GiB`."""
    if amount is None:
        return "?"
    unit = 0
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount /= 1024
        unit += 1
    return f"{amount:.0f} {_UNITS[unit]}" if unit == 0 or amount >= 100 else f"{amount:.1f} {_UNITS[unit]}"


def ago(moment: float | None) -> str:
    """Return how long ago a moment was, in seconds since the epoch, as in `3h ago`."""
    if moment is None:
        return "never"
    seconds = time.time() - moment
    for length, unit in _AGES:
        if seconds >= length:
            return f"{int(seconds / length)}{unit} ago"
    return "now"


def share(ratio: float | None) -> str:
    """Return a ratio as in `93.1 %`."""
    return "-" if ratio is None else f"{ratio * 100:.1f} %"


def count(number: int, one: str) -> str:
    """Return a number of things, as in `1 tag` or `2 tags`."""
    return f"{number:,} {one}{'' if number == 1 else 's'}"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Return rows in columns, the first row being the head."""
    lines = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
