"""`python -m tests.soak --minutes 10`: a fleet and the same replicas without Redis, side by side, and what is wrong."""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.eviction.scene import evictions
from tests.fleet.replicas import Replicas
from tests.fleet.servers import Valkey
from tests.replica import NO_PREFETCH
from tests.soak.churn import Churn
from tests.soak.scans import Scans
from tests.soak.verdict import judge
from tests.upstream import Image, Upstream

MIB = 2**20
_REGIONS = ("west", "west", "west")
_IMAGES = 80
_LAYERS = (900_000, 400_000, 200_000, 60_000)
_CLIENTS = 2
_PACE = 0.6


class Ran(NamedTuple):
    """How one set of replicas fared."""

    name: str
    pulls: int
    received: int
    upstream: int
    evicted: int
    mark: int
    most: int
    wrong: list[str]


def main() -> None:
    """Run both, print how they fared, and end with 1 if anything is wrong."""
    options = _options()
    rounds = max(1, int(options.minutes * 60 / _PACE))
    with ExitStack() as stack:
        folder = Path(options.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        valkey = stack.enter_context(Valkey(folder / "valkey"))
        results: dict[str, Ran] = {}
        threads = [
            threading.Thread(
                target=lambda name=name, url=url: results.update({name: soak(folder, name, url, rounds, options.seed)})
            )
            for name, url in (("fleet", valkey.url), ("alone", ""))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    sys.exit(_report(results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of churn (10)")
    parser.add_argument("--seed", type=int, default=1, help="of what is pulled (1)")
    parser.add_argument("--folder", help="where the stores are kept (a temporary folder, removed at the end)")
    return parser.parse_args()


def soak(folder: Path, name: str, redis_url: str, rounds: int, seed: int) -> Ran:
    """Let clients pull through three replicas, each with room for half of all that there is, and judge."""
    with Upstream() as upstream:
        images = [
            upstream.push_image(f"library/soak{number}", "1", ("linux/amd64",), _LAYERS, number, raw=True)
            for number in range(_IMAGES)
        ]
        mark = _half(images)
        settings = {**NO_PREFETCH, "LAYOVER_STORE__SIZE": f"{mark}B", "LAYOVER_STORE__MIN_FREE": "0B"}
        settings |= {"LAYOVER_LOG__LEVEL": "warning"}
        place = folder / name
        place.mkdir(parents=True)
        replicas = Replicas(place, _REGIONS, redis_url, {"docker.io": upstream.url}, settings=settings)
        with replicas.near():
            members = list(replicas)
            churn = Churn([member.port for member in members], images, _PACE, _CLIENTS, seed)
            with Scans(members) as scans:
                churn.run(rounds)
            wrong = [f"{text}" for text in churn.errors]
            most = max(*scans.most, *scans.most_counted)
            if most > mark:
                wrong.append(f"a store took {most} bytes of {mark}")
            trails = [evictions(member.store) for member in members]
            verdict = judge(trails, scans.scans, churn.pulls)
            wrong += verdict.wrong
            for member in members:
                if "Traceback" in member.log.read_text() or "defect" in member.log.read_text():
                    wrong.append(f"{member.log} tells of a defect")
            _say(
                f"{name}: {verdict.evictions} evictions, {verdict.last_copies} of last copies, {verdict.judged} judged"
            )
        return Ran(name, churn.count, churn.received, upstream.counters.sent(), verdict.evictions, mark, most, wrong)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - it is the command's answer


def _half(images: list[Image]) -> int:
    """Return half of what all images take on a disk, in bytes."""
    sizes = [blob.size for image in images for blob in image.blobs] + [4096] * 2 * len(images)
    return sum(-(-size // 4096) * 4096 for size in sizes) // 2


def _report(results: dict[str, Ran]) -> int:
    """Print how both fared; return 1 if anything is wrong."""
    fleet, alone = results["fleet"], results["alone"]
    for ran in (fleet, alone):
        mib = f"{ran.received / MIB:.0f} MiB, {ran.upstream / MIB:.1f} of them from the upstream"
        most = f"at most {ran.most / MIB:.2f} of {ran.mark / MIB:.2f} MiB in a store"
        _say(f"{ran.name}: {ran.pulls} pulls, {mib}; {ran.evicted} evictions; {most}")
        for text in ran.wrong[:20]:
            _say(f"  wrong: {text}")
    share = fleet.upstream / max(1, alone.upstream)
    _say(f"the fleet asked the upstream for {share:.2f} of the bytes that the same replicas alone did")
    return int(bool(fleet.wrong or alone.wrong) or share > 0.5)


if __name__ == "__main__":
    main()
