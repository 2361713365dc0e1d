"""Threads that hang keep nothing from ending."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import Future

import pytest

from mirror.source.upstream.daemons import DaemonThreads

HANGS = """
import asyncio, threading
from mirror.source.upstream.daemons import DaemonThreads
from mirror.source.upstream.credentials.leases import Ask, Leases

begun, end = threading.Event(), threading.Event()

def hang():
    begun.set()
    end.wait(3600)

async def main():
    leases = Leases(DaemonThreads(), 1.0)
    waiting = asyncio.create_task(leases.get(Ask("label", "key", "source", hang)))
    while not begun.is_set():
        await asyncio.sleep(0.01)
    await leases.close()
    await asyncio.wait({waiting})
    assert "not asked any more" in str(waiting.exception())

asyncio.run(main())
if IS_LATE:
    end.set()
    for each in threading.enumerate():
        each is threading.main_thread() or each.join()
"""


def test_runs__each_call_in_a_thread_of_its_own() -> None:
    threads, gate = DaemonThreads(), threading.Event()
    waiting = [threads.submit(gate.wait, 60) for _ in range(20)]
    assert threads.submit(lambda first, second: first - second, 5, second=3).result(20) == 2
    gate.set()
    assert all(each.result(20) for each in waiting)


def test_passes_on__what_a_call_raises() -> None:
    failed: Future[object] = DaemonThreads().submit(sys.exit, "done")
    with pytest.raises(SystemExit, match="done"):
        failed.result(20)


@pytest.mark.parametrize("is_late", [False, True])
def test_lets_the_process_end__with_no_complaint(*, is_late: bool) -> None:
    script = HANGS.replace("IS_LATE", str(is_late))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
