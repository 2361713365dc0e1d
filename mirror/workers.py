"""The replica's process: signals, and one shutdown."""

from __future__ import annotations

import asyncio
import signal

from mirror.app import Replica
from mirror.config import Settings


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends the process at once.

    Raises:
        ConfigError: a file that the configuration names cannot be used.
        StoreError: the store cannot be used.
        OSError: an address cannot be had.
    """
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(which: signal.Signals) -> None:
        stopping.set()
        loop.remove_signal_handler(which)

    for which in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(which, stop, which)
    await Replica(settings).run(stopping)
