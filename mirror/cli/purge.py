"""`layover purge`: remove an image, a digest, or all that a glob matches, on every replica."""

from __future__ import annotations

import argparse

from mirror.cli import ordering
from mirror.cli.figures import count, size
from mirror.cli.remote import Remote


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    ordering.add(commands, "purge", "remove images on every replica; the next pull fetches them anew", run)


def run(arguments: argparse.Namespace) -> int:
    """Purge, and return the exit code."""
    done = Remote.of(arguments).ask("POST", "/purge", body={"what": arguments.what})
    gone = f"{count(done['tags'], 'tag')}, {count(done['digests'], 'digest')}, {size(done['bytes'])} here"
    ordering.report(arguments, done, f"purged {done['what']}: {gone}")
    return 0
