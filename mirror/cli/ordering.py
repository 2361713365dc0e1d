"""What the commands have in common that give an order to the fleet."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from mirror.cli.remote import add_flags, print_json

_REACH = {
    "fleet": "the whole fleet",
    "alone": "this replica, which is alone",
    "later": "this replica now, and the others once Redis is back",
}


def add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    run: Callable[[argparse.Namespace], int],
) -> None:
    """Add a command that takes WHAT."""
    parser = commands.add_parser(name, help=text)
    parser.add_argument("what", metavar="WHAT", help="an image, a digest, or a glob over upstream/repository:tag")
    add_flags(parser)
    parser.set_defaults(run=run)


def report(arguments: argparse.Namespace, done: Mapping[str, Any], text: str) -> None:
    """Print what was done, and by whom."""
    if arguments.json:
        print_json(done)
    else:
        print(f"{text} ({_REACH.get(done['reach'], done['reach'])})")
