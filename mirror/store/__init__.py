"""The local store: verified content, partial files, and the little that cannot be derived from them.

May import: `observe`, `config`, `oci`. Callers may rely on: a file under `content/` is whole and has the digest that
its name says, whatever happened before (kill, power loss, full disk); the index can be lost without losing anything.
"""

from mirror.store.content import Content
from mirror.store.holds import Holds
from mirror.store.ownership import StoreError
from mirror.store.partial import Partial
from mirror.store.records import Link, TagState, Verdict
from mirror.store.shelf import Shelf
from mirror.store.store import Store

__all__ = ["Content", "Holds", "Link", "Partial", "Shelf", "Store", "StoreError", "TagState", "Verdict"]
