"""The thread pools of a process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

_DISK_THREADS = 8
_HASH_THREADS = 2


class Pools:
    """Threads by what they wait for, so that one that hangs never starves another kind."""

    def __init__(self) -> None:
        self.disk = ThreadPoolExecutor(_DISK_THREADS, "disk")
        self.hashing = ThreadPoolExecutor(_HASH_THREADS, "hash")

    def close(self) -> None:
        """End the threads without waiting for those that hang."""
        for pool in (self.disk, self.hashing):
            pool.shutdown(wait=False, cancel_futures=True)
