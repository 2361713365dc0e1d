"""Traces from a file: a line a request, `seconds object bytes`, and who asked, if known. docs/eviction.md says more."""

from __future__ import annotations

import zlib
from pathlib import Path

from tests.benchmarks.eviction.traces import BEGIN, Request, Trace


def read(path: Path) -> Trace:
    """Return the requests of a file in the order of time; its earliest second becomes the first of the trace.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is not of this form.
    """
    keys: dict[str, int] = {}
    requests: list[Request] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        fields = line.partition("#")[0].replace(",", " ").split()
        if not fields:
            continue
        try:
            at, name, size = float(fields[0]), fields[1], int(fields[2])
        except (IndexError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: not `seconds object bytes [client]`: {line[:80]!r}") from error
        client = zlib.crc32(fields[3].encode()) if len(fields) > 3 else 0
        requests.append(Request(at, keys.setdefault(name, len(keys)), max(size, 1), client))
    if not requests:
        raise ValueError(f"{path}: no requests")
    first = min(request.at for request in requests)
    moved = (Request(BEGIN + each.at - first, each.key, each.size, each.client) for each in requests)
    return Trace(path.stem, sorted(moved, key=lambda request: request.at))
