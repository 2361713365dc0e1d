"""The partial files of a store: those that fills have, and what earlier ones left."""

from __future__ import annotations

import contextlib
import threading
import uuid
import weakref
from collections.abc import Collection, Sequence
from pathlib import Path

import structlog

from mirror.oci.digest import Digest
from mirror.store.content import Content
from mirror.store.partial import Leftover, Partial, clear_leftovers, leftovers

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Partials:
    """Opens partial files, and deletes those that nobody has. All of it blocks; any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._boot_id = uuid.uuid4().hex
        self._opened: weakref.WeakSet[Partial] = weakref.WeakSet()
        # What is just being opened is not to be deleted.
        self._lock = threading.Lock()
        self._log = structlog.get_logger("layover.store")

    def recover(self, content: Content) -> int:
        """Bring what a kill left in order, before anything is opened; return how many bytes stay."""
        with contextlib.suppress(OSError):
            self._boot_id = _BOOT_ID.read_text().strip()
        return clear_leftovers(self._folder, self._boot_id, content)

    def open(self, digest: Digest, origin: str) -> Partial:
        """Return the partial file of `digest` as it comes from `origin`.

        Raises:
            OSError: the disk is full or broken.
        """
        with self._lock:
            partial = Partial(self._folder, digest, origin, self._boot_id)
            self._opened.add(partial)
        return partial

    def clear(self, amount: int, before: float) -> Sequence[Leftover]:
        """Delete what no fill has had since `before`, oldest first, until `amount` bytes went; return which went."""
        freed: list[Leftover] = []
        with self._lock:
            for each in self._left():
                if amount <= 0 or each.changed > before:
                    break
                each.remove()
                amount -= each.size
                freed.append(each)
        return freed

    def clear_of(self, digests: Collection[Digest]) -> Sequence[Leftover]:
        """Delete what fills that ended early left of some digests; return which went."""
        with self._lock:
            return [each for each in self._left() if each.digest in digests and self._is_deleted(each)]

    def _is_deleted(self, leftover: Leftover) -> bool:
        try:
            leftover.remove()
        except OSError as error:
            self._log.error("a partial file cannot be deleted", digest=leftover.digest, error=str(error))
            return False
        return True

    def _left(self) -> Sequence[Leftover]:
        used = {partial.path for partial in self._opened if partial.is_open}
        return leftovers(self._folder, self._boot_id, used)
