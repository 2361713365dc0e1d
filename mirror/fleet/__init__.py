"""What replicas tell each other through Redis, and what a replica is told that has none.

May import: `observe`, `config`, `oci`. Callers may rely on: nothing here fails a pull. No method raises because of
Redis, all waiting for it during one request adds up to at most 250 ms, and to nothing while it is known to be away.
"""

from mirror.fleet.alone import Alone
from mirror.fleet.protocol import (
    Asked,
    Claim,
    Coordinator,
    Fact,
    Filler,
    Leave,
    Message,
    Order,
    Posted,
    Sibling,
    Turn,
    Wish,
)

__all__ = [
    "Alone",
    "Asked",
    "Claim",
    "Coordinator",
    "Fact",
    "Filler",
    "Leave",
    "Message",
    "Order",
    "Posted",
    "Sibling",
    "Turn",
    "Wish",
]
