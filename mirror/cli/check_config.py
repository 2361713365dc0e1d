"""`layover check-config`: say whether a configuration would start."""

from __future__ import annotations

import argparse
import os

from mirror.cli.serve import add_config
from mirror.config import load


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("check-config", help="check the configuration and say what is wrong with it")
    add_config(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check, and return the exit code."""
    settings = load(arguments.config, os.environ)
    from mirror.fleet import RedisAddress
    from mirror.source.upstream import tls_contexts
    from mirror.source.upstream.credentials import check

    check(settings.upstreams.all)
    tls_contexts(settings.upstreams)
    RedisAddress(settings.fleet)
    print("the configuration is right")
    return 0
