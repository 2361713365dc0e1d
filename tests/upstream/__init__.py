"""A registry server for tests: real HTTP, real pushes, exact counters, and a dial for each way a registry can behave.

`Upstream` runs it inside the test process, on its own thread; `python -m tests.upstream` runs it as a process of its
own, steered through JSON under `/_control/`; `UpstreamProcess` starts such a process and speaks to it.
"""

from tests.upstream.counters import Received, Span
from tests.upstream.dials import Dials
from tests.upstream.failures import Failure
from tests.upstream.images import Descriptor, Image, PlatformImage
from tests.upstream.process import UpstreamProcess
from tests.upstream.server import Upstream

__all__ = [
    "Descriptor",
    "Dials",
    "Failure",
    "Image",
    "PlatformImage",
    "Received",
    "Span",
    "Upstream",
    "UpstreamProcess",
]
