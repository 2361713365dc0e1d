"""`layover pin`: never evict an image, a digest, or what a glob matches, on any replica."""

from __future__ import annotations

import argparse

from mirror.cli import ordering
from mirror.cli.remote import Remote


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    ordering.add(commands, "pin", "never evict images, on every replica, wherever their tags move", run)


def run(arguments: argparse.Namespace) -> int:
    """Pin, and return the exit code."""
    done = Remote.of(arguments).ask("POST", "/pins", body={"what": arguments.what})
    ordering.report(arguments, done, f"pinned {done['what']}")
    return 0
