"""`python -m tests.benchmarks`: measure, print a table, and keep the numbers as JSON where asked to."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

from rich.console import Console

from tests.benchmarks.results import OURS, Result
from tests.benchmarks.rows import EVERY, GROWTH, ROWS, measure
from tests.benchmarks.scale import QUICK, Scale
from tests.benchmarks.servers import NAMES, Missing
from tests.benchmarks.table import LEGEND, document, table

_WIDTH = 200


def main() -> None:
    """Run the rows asked for."""
    options = _options()
    scale = QUICK if options.quick else Scale()
    scale = dataclasses.replace(scale, rounds=options.rounds or scale.rounds, servers=tuple(options.servers))
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    results: list[Result] = []
    absent, broken = [], []
    for row in options.rows:
        description = " ".join((EVERY[row].__doc__ or "").split())
        began = time.monotonic()
        try:
            results += measure(row, scale, options.folder)
        except Missing as missing:
            absent.append(f"{row}: not measured: {missing}")
        except (OSError, RuntimeError, AssertionError, ValueError) as error:  # the other rows keep their numbers
            broken.append(f"{row}: {type(error).__name__}: {error}")
        took = f"({time.monotonic() - began:.0f} s)"
        console.print(f"{row}: {description} {took}", highlight=False, soft_wrap=True)
    console.print(table(results, is_markdown=not sys.stdout.isatty()))
    console.print(LEGEND, highlight=False, soft_wrap=True, markup=False)
    for note in _notes(results) + absent + broken:
        console.print(note, highlight=False, soft_wrap=True, markup=False)
    if options.json is not None:
        options.json.write_text(json.dumps(document(results, scale) | {"broken": broken}, indent=2) + "\n")
    sys.exit(bool(broken))


def _notes(results: list[Result]) -> list[str]:
    notes = [f"{result.name}: {note}" for result in results for note in result.notes]
    return notes + [f"{result.name}: {name}: {why}" for result in results for name, why in result.failures.items()]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        epilog=f"Asked for by name alone, since they take long: {', '.join(GROWTH)}.",
    )
    parser.add_argument("--rows", type=_names, default=list(ROWS), help=f"of {','.join(EVERY)}")
    parser.add_argument("--rounds", type=int, help="how often each server has its turn")
    parser.add_argument("--servers", type=_names, default=list(NAMES), help=f"of {','.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="short and small: to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value to FILE")
    parser.add_argument("--folder", type=Path, help="where the servers keep what they cache")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(EVERY) | set(options.servers) - set(NAMES):
        parser.error(f"no such rows or servers: {', '.join(sorted(unknown))}")
    if OURS not in options.servers:
        parser.error(f"{OURS} is always measured")
    return options


def _names(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
