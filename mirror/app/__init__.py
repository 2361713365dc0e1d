"""The composition root: builds door and hub from the configuration, starts them and stops them in order.

May import: everything but `cli`, `demo` and `workers`. Callers may rely on: nothing runs before `run` or `start`, and
what was started is stopped when they end.
"""

from mirror.app.door import DoorApp
from mirror.app.hub import HubApp
from mirror.app.pools import Pools
from mirror.app.replica import Replica

__all__ = ["DoorApp", "HubApp", "Pools", "Replica"]
