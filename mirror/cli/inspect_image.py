"""`layover inspect`: what is held of an image, where the copies are, and why pulls hit or missed."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

from mirror.cli.figures import ago, size, table
from mirror.cli.remote import Remote, add_flags, print_json

_WENT = {
    "pressure": "evicted for want of room",
    "unused": "evicted as it was not used for long",
    "abandoned": "given up half-way",
    "purge": "purged",
}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("inspect", help="say what is held of an image, where, and why pulls hit or missed")
    parser.add_argument("what", metavar="IMAGE", help="an image, with a tag or a digest, or a digest alone")
    add_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Inspect, and return the exit code."""
    report = Remote.of(arguments).ask("GET", "/inspect", {"what": arguments.what})
    if arguments.json:
        print_json(report)
    else:
        print("\n".join(f"{name:<11}{text}" if name else text for name, text in _lines(report)))
    return 0


def _lines(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "image", report["image"]
    if report["digest"] is not None:
        yield "digest", report["digest"]
    missing = f", {size(report['missing'])} of it not held" if report["missing"] else ""
    yield "held", f"{size(report['bytes'])}{missing}" if report["is_held"] else "no"
    if report["platforms"]:
        yield "platforms", ", ".join(report["platforms"])
    if report["checked_at"] is not None:
        yield "tag", f"checked {ago(report['checked_at'])}, {_freshness(report['fresh_until'])}"
    if report["purged_at"] is not None:
        yield "purged", ago(report["purged_at"])
    yield "pinned", ", ".join(report["pinned_by"]) or "no"
    where = [f"{each['label']} ({each['region']}, {each['url']})" for each in report["holders"]]
    yield "also at", ", ".join(where) or "no other replica that is known"
    if report["last_pull"] is not None:
        yield "last pull", _pull(report["last_pull"])
    if report["parts"]:
        yield "", ""
        yield "", table([("CONTENT", "KIND", "SIZE", "HERE", "ELSEWHERE", ""), *map(_part, report["parts"])])


def _freshness(until: float | None) -> str:
    if until is None:
        return "fresh for ever"
    left = until - time.time()
    return f"fresh for {left:.0f} s more" if left > 0 else "asked about again at the next pull"


def _pull(pull: dict[str, Any]) -> str:
    return f"{pull['outcome']}, {ago(pull['at'])}: {pull['why']}"


def _part(part: dict[str, Any]) -> tuple[str, ...]:
    notes = "pinned" if part["is_pinned"] else ""
    if part["evicted"] is not None:
        notes = f"{_WENT[part['evicted']['reason']]} {ago(part['evicted']['at'])}"
    elif part["last_pull"] is not None and part["kind"] == "blob":
        notes = "; ".join(filter(None, (notes, _pull(part["last_pull"]))))
    here = "yes" if part["is_held"] else "no"
    copies = "-" if part["copies"] is None else str(part["copies"])
    return part["digest"][:19], part["kind"], size(part["bytes"]), here, copies, notes
