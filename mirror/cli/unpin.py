"""`layover unpin`: let what was pinned be evicted again."""

from __future__ import annotations

import argparse

from mirror.cli import ordering
from mirror.cli.remote import Remote


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    ordering.add(commands, "unpin", "let images that were pinned by that name be evicted again", run)


def run(arguments: argparse.Namespace) -> int:
    """Unpin, and return the exit code."""
    done = Remote.of(arguments).ask("DELETE", "/pins", query={"what": arguments.what})
    ordering.report(arguments, done, f"unpinned {done['what']}")
    return 0
