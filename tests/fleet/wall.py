"""How long a crowd waits for one cold image: at one replica, and at six in two regions.

`python -m tests.fleet.wall [MIB…]` prints both, for an image with layers of so many MiB.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fleet.crowd import pull
from tests.fleet.replicas import Replicas
from tests.fleet.servers import Valkey
from tests.upstream import Upstream

_MIB = 2**20
_CLIENTS = 60
_DELAY = 0.02
_REGIONS = ("west", "west", "west", "east", "east", "east")


def measure(regions: Sequence[str], layers: Sequence[int]) -> str:
    """Return what a crowd's pull of a cold image cost, in words."""
    with (
        tempfile.TemporaryDirectory() as name,
        Upstream() as upstream,
        Valkey(Path(name) / "valkey") as valkey,
        Replicas(
            Path(name), regions, valkey.url if len(regions) > 1 else "", {"docker.io": upstream.url}, delay=_DELAY
        ) as replicas,
    ):
        image = upstream.push_image("library/cold", "1", ("linux/amd64",), layers, raw=True)
        upstream.counters.clear()
        replicas.line.passed = 0
        began = time.monotonic()
        pulled = pull([each.url for _ in range(_CLIENTS // len(regions)) for each in replicas], "library/cold", "1")
        seconds = time.monotonic() - began
        failed = sum(bool(each.error) for each in pulled)
        return (
            f"{len(regions)} replicas: {seconds:.1f} s, {failed} of {len(pulled)} clients failed, upstream "
            f"{upstream.counters.sent() / image.size:.2f} x, between regions {replicas.line.passed / image.size:.2f} x"
        )


def main() -> None:
    """Measure as the command line asks."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet.wall", description=__doc__)
    parser.add_argument("layers", type=int, nargs="*", default=[20, 8, 3], help="MiB of each layer")
    layers = [each * _MIB for each in parser.parse_args().layers]
    for regions in (_REGIONS[:1], _REGIONS):
        print(measure(regions, layers), flush=True)  # noqa: T201 - it is the command's answer


if __name__ == "__main__":
    main()
