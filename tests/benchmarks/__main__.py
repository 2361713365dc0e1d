"""`python -m tests.benchmarks`: measure, print a table, and keep the numbers as JSON where asked to."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.rows import QUICK, ROWS, Result, Scale, measure

_SERVERS = ("layover", "nginx")
_MISSING = "not measured"
_WIDTH = 120


def main() -> None:
    """Run the rows asked for."""
    options = _options()
    scale = QUICK if options.quick else Scale()
    scale = dataclasses.replace(scale, rounds=options.rounds)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    results: list[Result] = []
    try:
        for row in options.rows:
            console.print(f"{row}: {' '.join((ROWS[row].__doc__ or '').split())}", highlight=False, soft_wrap=True)
            results += measure(row, scale, options.folder)
    finally:  # a row that breaks does not cost the others their numbers
        console.print(_table(results))
        for note in (f"{result.name}: {note}" for result in results for note in result.notes):
            console.print(note, highlight=False, soft_wrap=True)
        if options.json is not None:
            options.json.write_text(json.dumps(_document(results, scale), indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rows", type=lambda text: text.split(","), default=list(ROWS), help=f"of {','.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=Scale.rounds, help="how often each server has its turn")
    parser.add_argument("--quick", action="store_true", help="short and small: to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value to FILE")
    parser.add_argument("--folder", type=Path, help="where the servers keep what they cache")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}")
    return options


def _table(results: list[Result]) -> Table:
    table = Table(caption=f"medians; {os.cpu_count()} cores")
    for name in ("work", "unit"):
        table.add_column(name)
    for name in (*_SERVERS, "ratio", "target"):
        table.add_column(name, justify="right")
    for result in results:
        ratio = _MISSING if result.ratio is None else f"{result.ratio:.2f}"
        medians = (_number(result.median(server)) for server in _SERVERS)
        table.add_row(result.name, result.unit, *medians, ratio, result.target)
    return table


def _number(value: float | None) -> str:
    if value is None:
        return _MISSING
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _document(results: list[Result], scale: Scale) -> dict[str, object]:
    rows = [
        dataclasses.asdict(result)
        | {"ratio": result.ratio, "medians": {server: result.median(server) for server in result.values}}
        for result in results
    ]
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    return {"machine": machine, "scale": dataclasses.asdict(scale), "rows": rows}


if __name__ == "__main__":
    main()
