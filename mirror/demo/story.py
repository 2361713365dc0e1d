"""The story of one image: pulled cold, pulled warm, and pulled once more when its registry is gone."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
from pathlib import Path

from rich.console import Console

from mirror.demo.client import PullError, pull
from mirror.demo.image import PLATFORMS, build
from mirror.demo.registry import Registry
from mirror.demo.replica import Replica, ReplicaError
from mirror.demo.screen import Chapter, Screen

_UPSTREAM = "registry.example"
_REPOSITORY = "shop/app"
_TAG = "1.0"
_SECONDS = 55.0
_INTERRUPTED = 130


class UntrueError(Exception):
    """Everything was pulled, but not as the story has it."""


def run() -> int:
    """Tell the story on the standard output; return 0 if it is true, 1 if not, 130 if it was interrupted."""
    screen = Screen(Console())
    try:
        asyncio.run(_tell(screen))
    except (PullError, ReplicaError, UntrueError) as error:
        screen.fail(str(error))
        return 1
    except TimeoutError:
        screen.fail(f"it did not end within {_SECONDS:.0f} s")
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        screen.say("Interrupted.")
        return _INTERRUPTED
    return 0


async def _tell(screen: Screen) -> None:
    if task := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with asyncio.timeout(_SECONDS), contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="layover-demo-")))
        image = await asyncio.to_thread(build)
        registry = Registry(image, _REPOSITORY, _TAG)
        await registry.start()
        stack.push_async_callback(registry.stop)
        screen.say(
            f"A registry on this machine, {_UPSTREAM}, has {_REPOSITORY}:{_TAG} "
            f"for {len(PLATFORMS)} platforms: {image.size / 2**20:.0f} MiB."
        )
        chapters = await _with_registry(screen, folder, registry)
        chapters.append(await _without_registry(screen, folder, registry))
    screen.sum_up(chapters)


async def _with_registry(screen: Screen, folder: Path, registry: Registry) -> list[Chapter]:
    chapters = []
    async with Replica(folder, _UPSTREAM, registry.url, tag_ttl="5m") as replica:
        for number, title in enumerate(("cold", "warm"), 1):
            screen.say(f"{number}. {title.capitalize()}: {PLATFORMS[0]} is pulled through the mirror.")
            with screen.watching() as watch:
                pulled = await pull(f"{replica.url}/v2/{_UPSTREAM}/{_REPOSITORY}", _TAG, PLATFORMS[0], watch)
            chapters.append(Chapter(title, pulled, registry.take_cost()))
            screen.tell(chapters[-1])
    cold, warm = (chapter.cost for chapter in chapters)
    if cold is None or not cold.requests:
        raise UntrueError("the cold pull cost the registry nothing: it was not cold")
    if warm is None or warm.requests:
        raise UntrueError(f"the warm pull cost the registry {warm and warm.requests} requests")
    return chapters


async def _without_registry(screen: Screen, folder: Path, registry: Registry) -> Chapter:
    url = registry.url
    await registry.stop()
    screen.say("3. The registry is gone, the mirror restarted, and every tag's time to live is over.")
    async with Replica(folder, _UPSTREAM, url, tag_ttl="100ms") as replica:
        with screen.watching() as watch:
            pulled = await pull(f"{replica.url}/v2/{_UPSTREAM}/{_REPOSITORY}", _TAG, PLATFORMS[0], watch)
    chapter = Chapter("registry gone", pulled, None)
    screen.tell(chapter)
    if "detail=stale-" not in pulled.cache_status:
        raise UntrueError(f"the mirror did not say that the tag is stale: {pulled.cache_status!r}")
    return chapter
