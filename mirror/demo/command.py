"""`layover demo`: show what a mirror saves, with an embedded registry."""

from __future__ import annotations

import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("demo", help="pull an image cold, warm and with its registry gone; needs no internet")
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Tell the story, and return the exit code."""
    from mirror.demo.story import run as tell  # noqa: PLC0415 - rich and an HTTP server are for this command alone

    return tell()
