"""`python -m tests.benchmarks`: measure, print a table, and keep the numbers as JSON where asked to."""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from tests.benchmarks.results import OURS, Result
from tests.benchmarks.rows import EVERY, GROWTH, ROWS, measure
from tests.benchmarks.scale import QUICK, Scale
from tests.benchmarks.servers import NAMES, Missing
from tests.benchmarks.table import LEGEND, document, machine, table

_WIDTH = 200


@dataclasses.dataclass
class _Outcome:
    """What was measured; what could not be, for want of a program; and what broke."""

    results: list[Result] = dataclasses.field(default_factory=list)
    absent: list[str] = dataclasses.field(default_factory=list)
    broken: list[str] = dataclasses.field(default_factory=list)


def main() -> None:
    """Run the rows asked for."""
    options = _options()
    scale = QUICK if options.quick else Scale()
    scale = dataclasses.replace(scale, rounds=options.rounds or scale.rounds, servers=tuple(options.servers))
    console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)
    outcome = _Outcome()
    before = machine()
    console.print(", ".join(f"{name} {value}" for name, value in before.items()))
    try:
        _measure(options.rows, scale, options.folder, console, outcome)
    except KeyboardInterrupt:
        outcome.broken.append("interrupted")
    console.print(table(outcome.results, is_markdown=not sys.stdout.isatty()))
    for line in (LEGEND, *_notes(outcome.results), *outcome.absent, *outcome.broken):
        console.print(line, soft_wrap=True, markup=False)
    if options.json is not None:
        told = {"machine": before, "broken": outcome.broken} | document(outcome.results, scale)
        options.json.write_text(json.dumps(told, indent=2) + "\n")
    sys.exit(bool(outcome.broken))


def _measure(rows: list[str], scale: Scale, folder: Path | None, console: Console, outcome: _Outcome) -> None:
    """Measure row by row; one that breaks does not cost the others their numbers."""
    for row in rows:
        console.print(f"{row}: {' '.join((EVERY[row].__doc__ or '').split())}", end=" ", soft_wrap=True)
        began = time.monotonic()
        try:
            outcome.results += measure(row, scale, folder)
        except Missing as missing:
            outcome.absent.append(f"{row}: not measured: {missing}")
        except (OSError, RuntimeError, AssertionError, ValueError, subprocess.SubprocessError) as error:
            outcome.broken.append(f"{row}: {type(error).__name__}: {error}")
        console.print(f"({time.monotonic() - began:.0f} s)")


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
