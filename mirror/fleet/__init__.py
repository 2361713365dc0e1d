"""What replicas tell each other through Redis, and what a replica is told that has none.

May import: `observe`, `config`, `oci`. Callers may rely on: nothing here fails a pull. No method raises because of
Redis, all waiting for it during one request adds up to at most 250 ms, and to nothing while it is known to be away.
"""

from mirror.fleet.address import RedisAddress
from mirror.fleet.alone import Alone
from mirror.fleet.coordinator import RedisCoordinator
from mirror.fleet.copies import HOLDERS_SECONDS
from mirror.fleet.identity import Identity
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
from mirror.fleet.waiting import allowance, done_within, within_allowance

__all__ = [
    "HOLDERS_SECONDS",
    "Alone",
    "Asked",
    "Claim",
    "Coordinator",
    "Fact",
    "Filler",
    "Identity",
    "Leave",
    "Message",
    "Order",
    "Posted",
    "RedisAddress",
    "RedisCoordinator",
    "Sibling",
    "Turn",
    "Wish",
    "allowance",
    "done_within",
    "within_allowance",
]
