"""What is measured, row by row. A row starts what it needs and leaves nothing running."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from tests.benchmarks.results import Result
from tests.benchmarks.rows import growth
from tests.benchmarks.rows.cold import crowd, one_client, staggered
from tests.benchmarks.rows.contention import busy
from tests.benchmarks.rows.faults import corrupt, cut, hang, limited, stall
from tests.benchmarks.rows.memory import readers, streams
from tests.benchmarks.rows.ranges import fetched, seek
from tests.benchmarks.rows.stock import objects
from tests.benchmarks.rows.warm import blob, manifest
from tests.benchmarks.scale import Scale

Row = Callable[[Scale, Path], list[Result]]

ROWS: Mapping[str, Row] = MappingProxyType(
    {
        "manifest": manifest,
        "blob": blob,
        "crowd": crowd,
        "line": one_client,
        "stagger": staggered,
        "hang": hang,
        "limited": limited,
        "cut": cut,
        "stall": stall,
        "corrupt": corrupt,
        "busy": busy,
        "seek": seek,
        "ranges": fetched,
        "readers": readers,
        "streams": streams,
        "objects": objects,
    }
)
"""What `make bench` measures."""

GROWTH: Mapping[str, Row] = MappingProxyType(
    {
        "growth-clients": growth.clients,
        "growth-blobs": growth.blobs,
        "growth-objects": growth.objects,
        "growth-doors": growth.doors,
    }
)
"""What is measured when it is asked for: how cost grows."""

EVERY: Mapping[str, Row] = MappingProxyType({**ROWS, **GROWTH})


def measure(row: str, scale: Scale, folder: Path | None) -> list[Result]:
    """Run one row in a temporary folder under `folder` (None: where temporary files go)."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=folder) as place:
        return EVERY[row](scale, Path(place))
