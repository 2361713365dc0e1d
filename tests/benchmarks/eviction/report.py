"""What was measured, as tables and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from rich import box
from rich.table import Table

from tests.benchmarks.eviction.fleet import Traffic
from tests.benchmarks.eviction.references import OPTIMUM, REFERENCES
from tests.benchmarks.eviction.rows import BATCHED, OURS, Row

_GB = 1e9
_COLUMNS = (OURS, *REFERENCES, OPTIMUM, BATCHED)


@dataclasses.dataclass(frozen=True)
class FleetRow:
    """Six replicas, each with a disk that holds a share `size` of a trace's working set."""

    trace: str
    seed: int | None
    size: float
    apart: Traffic
    together: Traffic


def ratios(rows: Iterable[Row], *, is_markdown: bool) -> Table:
    """Return the byte hit ratios of one replica in percent."""
    table = _table(is_markdown, "trace", "seed", "disk", *_COLUMNS, "to LRU", "of best")
    for row in rows:
        cells = [f"{100 * row.ratios[name]:.1f}" for name in _COLUMNS]
        table.add_row(*_name(row), *cells, f"{100 * row.over_lru:+.2f}", f"{row.of_best:.1%}")
    return table


def upstream(rows: Iterable[Row], *, is_markdown: bool) -> Table:
    """Return what one replica fetches from upstreams, in GB."""
    table = _table(is_markdown, "trace", "seed", "disk", "asked for", *_COLUMNS)
    for row in rows:
        cells = [f"{row.upstream_bytes(name) / _GB:,.0f}" for name in _COLUMNS]
        table.add_row(*_name(row), f"{row.requested / _GB:,.0f}", *cells)
    return table


def fleets(rows: Iterable[FleetRow], *, is_markdown: bool) -> Table:
    """Return from where the bytes come in a fleet, in percent of what was asked for, and upstream bytes in GB."""
    headings = ("local", "region", "elsewhere", "upstream, GB", "apart: local", "apart: upstream, GB", "of apart")
    table = _table(is_markdown, "trace", "seed", "disk", *headings)
    for row in rows:
        here, alone = row.together, row.apart
        shares = [f"{100 * part / here.requested:.1f}" for part in (here.local, here.region, here.elsewhere)]
        table.add_row(
            *_name(row),
            *shares,
            f"{here.upstream / _GB:,.0f}",
            f"{100 * alone.local / alone.requested:.1f}",
            f"{alone.upstream / _GB:,.0f}",
            f"{here.upstream / max(alone.upstream, 1):.0%}",
        )
    return table


def document(rows: Iterable[Row], fleet_rows: Iterable[FleetRow], broken: list[str]) -> dict[str, object]:
    """Return everything as JSON has it."""
    replica = [
        dataclasses.asdict(row) | {"upstream_bytes": {name: row.upstream_bytes(name) for name in row.ratios}}
        for row in rows
    ]
    return {"replica": replica, "fleet": [dataclasses.asdict(row) for row in fleet_rows], "broken_claims": broken}


def _table(is_markdown: bool, *headings: str) -> Table:
    table = Table(box=box.MARKDOWN if is_markdown else box.HEAVY_HEAD)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number == 0 else "right")
    return table


def _name(row: Row | FleetRow) -> tuple[str, str, str]:
    return row.trace, "" if row.seed is None else str(row.seed), f"{row.size:.0%}"
