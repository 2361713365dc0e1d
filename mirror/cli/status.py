"""`layover status`: how a replica does, its upstreams, and the fleet."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from mirror.cli.figures import count, share, size, table
from mirror.cli.remote import Remote, add_flags, print_json


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("status", help="say how the replica does, its upstreams, and the fleet")
    add_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Say it, and return the exit code."""
    status = Remote.of(arguments).ask("GET", "/status")
    if arguments.json:
        print_json(status)
    else:
        print("\n".join(_lines(status)))
    return 0


def _lines(status: dict[str, Any]) -> Iterator[str]:
    store, hits = status["store"], status["hits"]
    counting = "" if store["is_counted"] else ", still being counted"
    used = f"{size(store['bytes'])} of {size(store['capacity'])}{counting}"
    held = f"{count(store['manifests'], 'manifest')}, {count(store['blobs'], 'blob')}, {count(store['pins'], 'pin')}"
    yield f"layover {status['version']}, {status['fleet']['state']}"
    yield f"store   {used}: {held} in {store['path']}"
    yield (
        f"hits    {share(hits['ratio'])} of {count(hits['requests'], 'request')}, "
        f"{share(hits['byte_ratio'])} of {size(hits['bytes'])}, since it began"
    )
    if status["advice"]["requested"]:
        yield "advice  " + _advice(status["advice"])
    yield ""
    yield table([("REPLICA", "REGION", "URL", "ROOM", "VERSION", "STATE"), *map(_replica, status["fleet"]["replicas"])])
    if status["upstreams"]:
        yield ""
        yield table([("UPSTREAM", "STATE", "REQUESTS", "BYTES", "QUOTA LEFT"), *map(_upstream, status["upstreams"])])


def _advice(advice: dict[str, Any]) -> str:
    return (
        f"a store of half the size would have served {share(advice['half'])} of the bytes, "
        f"this one {share(advice['same'])}, one of twice the size {share(advice['double'])}"
    )


def _replica(member: dict[str, Any]) -> tuple[str, ...]:
    label = f"{member['label']} (this)" if member["is_this"] else member["label"]
    return label, member["region"], member["url"] or "-", size(member["room"]), member["version"], member["state"]


def _upstream(upstream: dict[str, Any]) -> tuple[str, ...]:
    left, whole = upstream["quota_left"], upstream["quota"]
    quota = "-" if left is None else f"{left}" if whole is None else f"{left} of {whole}"
    state = "up" if upstream["is_up"] else "down, left alone"
    return upstream["name"], state, f"{upstream['requests']:,}", size(upstream["bytes"]), quota
