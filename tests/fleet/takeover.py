"""What it costs that a replica is killed while it fills: six in two regions, ten clients at each, one cold image.

`python -m tests.fleet.takeover [MIB…]` prints it for an image with layers of so many MiB: how often the registry sent
its bytes, and how much of that came again as nobody who was left had it. `--at` is the share of the image that was sent
when the replica that has most of it is killed; several are several replicas, one after the other. `--rate` is what the
registry sends in all, in MiB a second; as much as it can if that is 0.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fleet.crowd import Crowd
from tests.fleet.replicas import Member, Replicas
from tests.fleet.servers import Valkey, until
from tests.upstream import Image, Upstream
from tests.upstream.images import Descriptor

_MIB = 2**20
_CLIENTS = 10
_DELAY = 0.02
_REGIONS = ("west", "west", "west", "east", "east", "east")


def beginning(member: Member, blob: Descriptor) -> int:
    """Return how many bytes of a blob a replica's disk has, from the first on."""
    algorithm, _, name = blob.digest.partition(":")
    if (member.store / "content" / algorithm / name[:2] / name).exists():
        return blob.size
    for path in (member.store / "partial").glob(f"{algorithm}-{name}-*.map"):
        with contextlib.suppress(FileNotFoundError):
            written = path.read_text().splitlines()
            spans = json.loads(written[0])["spans"] if written else []
            return int(spans[0][1]) if spans and spans[0][0] == 0 else 0
    return 0


def kill(upstream: Upstream, replicas: Replicas, image: Image) -> tuple[Member, int]:
    """Kill the replica that has most of an image, and return how many bytes that were sent nobody else has."""
    killed = max(replicas.running, key=lambda each: sum(beginning(each, blob) for blob in image.blobs))
    killed.kill()
    sent = {blob: min(blob.size, upstream.counters.sent(blob.digest)) for blob in image.blobs}
    left = {blob: max(beginning(each, blob) for each in replicas.running) for blob in image.blobs}
    return killed, sum(max(0, sent[blob] - left[blob]) for blob in image.blobs)


def measure(layers: Sequence[int], at: Sequence[float], rate: int) -> str:
    """Return what the kills cost, in words."""
    with (
        tempfile.TemporaryDirectory() as name,
        Upstream() as upstream,
        Valkey(Path(name) / "valkey") as valkey,
        Replicas(Path(name), _REGIONS, valkey.url, {"docker.io": upstream.url}, delay=_DELAY) as replicas,
    ):
        image = upstream.push_image("library/cold", "1", ("linux/amd64",), layers, raw=True)
        upstream.counters.clear()
        upstream.dials.blob_rate_total = rate or None
        replicas.line.passed = 0
        began = time.monotonic()
        crowd = Crowd([each.url for _ in range(_CLIENTS) for each in replicas], image.repository, image.tag).start()
        killed, lost = set(), 0
        for share in at:
            until(lambda share=share: upstream.counters.sent() >= share * image.size, f"{share} was sent", 600)  # type: ignore[misc]
            member, only_there = kill(upstream, replicas, image)
            killed.add(member.url)
            lost += only_there
        pulled = [each for each in crowd.result() if each.url not in killed]
        seconds = time.monotonic() - began
        return (
            f"killed at {', '.join(map(str, at))}: upstream {upstream.counters.sent() / image.size:.2f} x, "
            f"of which {lost / image.size:.2f} x was lost, between regions {replicas.line.passed / image.size:.2f} x, "
            f"{sum(bool(each.error) for each in pulled)} of {len(pulled)} clients failed, {seconds:.1f} s"
        )


def main() -> None:
    """Measure as the command line asks."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet.takeover", description=__doc__)
    parser.add_argument("layers", type=float, nargs="*", default=[100], help="MiB of each layer")
    parser.add_argument("--at", type=float, nargs="+", default=[0.5])
    parser.add_argument("--rate", type=float, default=0.0)
    asked = parser.parse_args()
    layers = [int(each * _MIB) for each in asked.layers]
    print(measure(layers, asked.at, int(asked.rate * _MIB)), flush=True)  # noqa: T201 - it is the command's answer


if __name__ == "__main__":
    main()
