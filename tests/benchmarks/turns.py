"""Who is measured when: servers side by side or each alone, in turn, so that what the machine does hits all alike."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from tests.benchmarks import servers
from tests.benchmarks.results import OURS
from tests.benchmarks.servers import Server

# These take half a minute for what is over in seconds elsewhere: once tells as much as three times.
SLOW = frozenset({"distribution", "zot"})


def turns(names: Sequence[str], rounds: int, once: Collection[str] = frozenset()) -> Iterator[str]:
    """Yield each name once a round, those of `once` in the first alone; the order turns round each time."""
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            if number == 0 or name not in once:
                yield name


@contextlib.contextmanager
def side_by_side(names: Sequence[str], origin: str, folder: Path) -> Iterator[dict[str, Server]]:
    """Run servers all at once, with nothing in their caches: for work that leaves those idle that are not in turn."""
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(dir=folder))
        yield {name: stack.enter_context(servers.start(name, origin, Path(place))) for name in names}


@contextlib.contextmanager
def alone(name: str, origin: str, folder: Path, settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[Server]:
    """Run one server with nothing in its cache; `settings` are for Layover's environment."""
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        if name == OURS:
            yield stack.enter_context(servers.layover(origin, place, settings))
        else:
            yield stack.enter_context(servers.start(name, origin, place))
