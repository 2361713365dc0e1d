"""Range requests (RFC 9110 §14)."""

from __future__ import annotations

import re
from typing import NamedTuple

MOST_RANGES = 1024
_SPEC = re.compile(r"[ \t]*(?:(\d{1,19})-(\d{0,19})|-(\d{1,19}))[ \t]*")


class Span(NamedTuple):
    """Bytes from `start` up to, not including, `stop`."""

    start: int
    stop: int


class RangeInvalid(Exception):
    """The ranges cannot be satisfied, or are none (416)."""


def parse_range(header: str | None, size: int) -> list[Span] | None:
    """Return the spans that a Range header asks of `size` bytes, in its order; None for the whole.

    An unknown unit, more than 1,024 ranges, and ranges that together are larger than the whole get the whole.

    Raises:
        RangeInvalid: the header is malformed, or no range touches what there is.
    """
    if header is None:
        return None
    unit, equals, rest = header.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return None
    specs = [spec for spec in rest.split(",") if spec.strip()]
    if len(specs) > MOST_RANGES:
        return None
    spans = [_span(spec, size) for spec in specs]
    satisfiable = [span for span in spans if span is not None]
    if not satisfiable:
        raise RangeInvalid
    if len(specs) > 1 and sum(span.stop - span.start for span in satisfiable) > size:
        return None
    return satisfiable


def is_multiple(header: str | None) -> bool:
    """Say whether a Range header asks for more than one range: such an answer is never a plain 206."""
    return header is not None and len([spec for spec in header.split(",") if spec.strip()]) > 1


def _span(spec: str, size: int) -> Span | None:
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise RangeInvalid
    first, last, suffix = match.groups()
    if suffix is not None:
        length = min(int(suffix), size)
        return Span(size - length, size) if length else None
    start = int(first)
    stop = int(last) + 1 if last else size
    if stop <= start and last:
        raise RangeInvalid
    return Span(start, min(stop, size)) if start < size else None
