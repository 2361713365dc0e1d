"""`layover serve`: run a replica."""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
from pathlib import Path

from mirror.config import load


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("serve", help="run a replica")
    add_config(parser)
    parser.set_defaults(run=run)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the flag that names the configuration file."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration; default: LAYOVER_CONFIG")


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal, and return the exit code."""
    settings = load(arguments.config, os.environ)
    from mirror.observe import logs
    from mirror.workers import serve

    logs.set_up(settings.log)
    _raise_file_limit()
    return serve(settings)


def _raise_file_limit() -> None:
    """Allow as many open files as the system lets: a stream takes three, and the usual limit is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
