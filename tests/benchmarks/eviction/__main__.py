"""`python -m tests.benchmarks.eviction`: replay traces by Layover's eviction and by the policies of others."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from tests.benchmarks.eviction import fleet, report
from tests.benchmarks.eviction.recording import read
from tests.benchmarks.eviction.report import FleetRow
from tests.benchmarks.eviction.rows import LEAST_SCALE, SIZES, Row, broken_claims, measure
from tests.benchmarks.eviction.traces import FAMILIES, Trace, generate

_WIDTH = 200
_FLEET_SIZE = 0.1


def main() -> None:
    """Measure what is asked for, print it, and end with 1 where a claim about the shipped families does not hold."""
    options = _options()
    console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)
    rows: list[Row] = []
    fleets: list[FleetRow] = []
    for name in [] if options.trace else options.families:
        for seed in options.seeds:
            _measure(generate(name, seed, options.scale), seed, options, rows, fleets)
    is_judged = options.scale >= LEAST_SCALE and not options.trace
    broken = broken_claims(rows) if is_judged else []
    for path in options.trace:
        _measure(read(path), None, options, rows, fleets)
    is_markdown = not sys.stdout.isatty()
    console.print("Byte hit ratio of one replica, %:", report.ratios(rows, is_markdown=is_markdown))
    console.print("Upstream bytes of one replica, GB:", report.upstream(rows, is_markdown=is_markdown))
    if fleets:
        console.print(f"{fleet.REGIONS} regions x {fleet.REPLICAS // fleet.REGIONS} replicas, % of what was asked for:")
        console.print(report.fleets(fleets, is_markdown=is_markdown))
    if is_judged:
        console.print("\n".join(f"not held: {each}" for each in broken) or "Every claim held.")
    else:
        console.print(f"Not judged: claims are about the shipped families from --scale {LEAST_SCALE} on.")
    if options.json is not None:
        options.json.write_text(json.dumps(report.document(rows, fleets, broken), indent=2) + "\n")
    sys.exit(bool(broken))


def _measure(
    trace: Trace, seed: int | None, options: argparse.Namespace, rows: list[Row], fleets: list[FleetRow]
) -> None:
    progress = Console(stderr=True, width=_WIDTH, highlight=False)
    for row in measure(trace, seed, options.sizes):
        rows.append(row)
        found = ", ".join(f"{name} {ratio:.1%}" for name, ratio in row.ratios.items())
        progress.print(f"{trace.name}, seed {seed}, {row.size:.0%}: {found}")
    if not options.no_fleet:
        capacity = trace.working_set * _FLEET_SIZE
        both = fleet.apart(trace, capacity), fleet.together(trace, capacity)
        fleets.append(FleetRow(trace.name, seed, _FLEET_SIZE, *both))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.eviction", description=__doc__)
    parser.add_argument("--families", type=_names, default=list(FAMILIES), help=f"of {','.join(FAMILIES)}")
    parser.add_argument("--seeds", type=_numbers, default=[1], metavar="N,N", help="from which traces are made")
    parser.add_argument("--sizes", type=_shares, default=SIZES, help="disks, in shares of what is ever asked for")
    parser.add_argument(
        "--scale", type=float, default=1.0, help=f"how much content and how many pulls; judged from {LEAST_SCALE} on"
    )
    parser.add_argument("--no-fleet", action="store_true", help="one replica alone")
    parser.add_argument("--trace", type=Path, action="append", default=[], help="replay a file instead: not judged")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value to FILE")
    options = parser.parse_args()
    if unknown := set(options.families) - set(FAMILIES):
        parser.error(f"no such families: {', '.join(sorted(unknown))}")
    return options


def _names(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def _shares(text: str) -> list[float]:
    return [float(each) for each in text.split(",")]


if __name__ == "__main__":
    main()
