"""The registry behind the servers that are compared: a process of its own on loopback, at the end of a line.

It speaks the pull side of the distribution protocol as real registries do, over a line with a round trip and a rate,
with blobs redirected to signed URLs of a content delivery network where the line says so, and with faults on demand.
It costs little: content is a rule in memory, and a request is a few lines of asyncio without any framework.
"""

from tests.benchmarks.origin.faults import Faults
from tests.benchmarks.origin.line import LAN, WAN, Line
from tests.benchmarks.origin.process import Cost, Origin

__all__ = ["LAN", "WAN", "Cost", "Faults", "Line", "Origin"]
