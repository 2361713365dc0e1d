"""Results as a table and as JSON."""

from __future__ import annotations

import dataclasses
import os
import platform

from rich import box
from rich.table import Table

from tests.benchmarks.results import Result
from tests.benchmarks.scale import Scale
from tests.benchmarks.servers import NAMES

LEGEND = """Medians of all rounds. ratio: Layover's by that of the target's server, else by nginx's.
≈ not measured: an earlier ratio to nginx stands in. [..] an earlier figure, for comparison alone."""
_MISSING = "-"
_VERDICTS = {"met": "green", "missed": "red", "not measured": "yellow", "": ""}


def table(results: list[Result], *, is_markdown: bool = False) -> Table:
    """Return the medians, ratios and verdicts as a table: for a terminal, or for a page."""
    drawn = Table(box=box.MARKDOWN if is_markdown else box.HEAVY_HEAD)
    for heading in ("work", "unit"):
        drawn.add_column(heading)
    for heading in (*NAMES, "ratio", "target"):
        drawn.add_column(heading, justify="right")
    drawn.add_column("verdict")
    for result in results:
        style = _VERDICTS[result.verdict]
        drawn.add_row(*_cells(result), f"[{style}]{result.verdict}[/]" if style else "")
    return drawn


def machine() -> dict[str, object]:
    """Return what the figures depend on: the machine, and how busy it is just now."""
    load = round(os.getloadavg()[0], 2)
    return {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version(), "load": load}


def document(results: list[Result], scale: Scale) -> dict[str, object]:
    """Return everything as JSON has it."""
    rows = [
        dataclasses.asdict(dataclasses.replace(result, recorded=dict(result.recorded)))
        | {
            "target": None if result.target is None else str(result.target),
            "ratio": result.ratio,
            "verdict": result.verdict,
            "medians": {server: result.median(server) for server in result.values},
        }
        for result in results
    ]
    return {"scale": dataclasses.asdict(scale), "rows": rows}


def _cells(result: Result) -> list[str]:
    ratio = _MISSING if result.ratio is None else f"{result.ratio:.2f}"
    target = _MISSING if result.target is None else str(result.target)
    return [result.name, result.unit, *(_cell(result, server) for server in NAMES), ratio, target]


def _cell(result: Result, server: str) -> str:
    """Return a server's median, that it failed, or what stands in."""
    if server in result.failures:
        return "failed"
    if (median := result.median(server)) is not None:
        return _number(median)
    if (stand_in := result.stand_in(server)) is not None:
        return f"≈{_number(stand_in)}"
    return f"\\[{_number(result.recorded[server])}]" if server in result.recorded else _MISSING


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
