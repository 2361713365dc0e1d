"""A process that fills a store for ever, to be stopped or killed at any moment: `python -m tests.store.scribe PATH`."""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from tests.store.stock import Image, opened


async def write(path: Path) -> None:
    """Put one image after another in."""
    async with opened(path) as store:
        for number in itertools.count():
            await asyncio.to_thread(lambda: None)
            Image(number).put(store)


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1])))
