"""The command line's root."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Protocol

from mirror.cli import check_config, client_config, inspect_image, ls, pin, purge, serve, status, unpin
from mirror.config import ConfigError
from mirror.oci.errors import LayoverError
from mirror.store import StoreError

_PLANNED = ("warm", "verify")
_COMMANDS = (serve, check_config, client_config, status, ls, inspect_image, purge, pin, unpin)


class Command(Protocol):
    """A module that holds one command."""

    def add(self, commands: argparse._SubParsersAction[argparse.ArgumentParser], /) -> None:
        """Add the command to the command line."""


def main(arguments: Sequence[str] | None = None, others: Sequence[Command] = ()) -> int:
    """Run one command, of this package or of `others`, and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in _PLANNED:
        return _fail(f"{words[0]}: not available yet", 2)
    parsed = _parser(others).parse_args(words)
    try:
        code: int = parsed.run(parsed)
        return code
    except (ConfigError, StoreError) as error:
        return _fail(str(error), 2)
    except LayoverError as error:
        return _fail(str(error), 1)
    except OSError as error:
        return _fail(error.strerror or str(error), 1)
    except KeyboardInterrupt:
        return 130


def _parser(others: Sequence[Command]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("layover", description="A pull-through caching mirror for container registries.")
    parser.add_argument("--version", action="version", version=f"layover {version('layover')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (*_COMMANDS, *others):
        command.add(commands)
    return parser


def _fail(text: str, code: int) -> int:
    print(f"layover: {text}", file=sys.stderr)
    return code
