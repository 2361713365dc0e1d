"""`layover ls`: the images that are held."""

from __future__ import annotations

import argparse
from typing import Any

from mirror.cli.figures import ago, size, table
from mirror.cli.remote import Remote, add_flags, print_json

_PAGE = "1000"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("ls", help="list the images that are held")
    parser.add_argument("what", metavar="WHAT", nargs="?", default="", help="only these: an image, a digest or a glob")
    add_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List, and return the exit code."""
    images = _images(Remote.of(arguments), arguments.what)
    if arguments.json:
        print_json({"images": images})
    elif not images:
        print(f"nothing is held{f' of {arguments.what}' if arguments.what else ''}")
    else:
        rows = [(each["image"], size(each["bytes"]), ago(each["last_used"]), _notes(each)) for each in images]
        print(table([("IMAGE", "SIZE", "LAST USED", ""), *rows]))
    return 0


def _images(remote: Remote, what: str) -> list[dict[str, Any]]:
    query = {"most": _PAGE} | ({"what": what} if what else {})
    images: list[dict[str, Any]] = []
    after: str | None = ""
    while after is not None:
        page = remote.ask("GET", "/images", query | ({"after": after} if after else {}))
        images += page["images"]
        after = page["next"]
    return images


def _notes(image: dict[str, Any]) -> str:
    notes = ["pinned"] if image["is_pinned"] else []
    if image["missing"]:
        notes.append(f"{size(image['missing'])} not held")
    return ", ".join(notes)
