"""What peers were measured at earlier: all of a line in one run on two cores over loopback, request logging off.

distribution 3.1.2, zot 2 (sync, on demand), nginx 1.22 (file cache, two workers). Where a peer is not installed, its
ratio to nginx in these figures stands in; where nginx cannot do the work the figure is shown for comparison alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

RECORDED: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "manifest by tag": {"nginx": 62_000, "distribution": 990, "zot": 10_600},
        "manifest by digest": {"nginx": 60_000, "distribution": 9_000, "zot": 15_500},
        "blob CPU": {"nginx": 0.38, "distribution": 1.07, "zot": 1.12},
        "crowd wall": {"nginx": 4.4, "distribution": 8.6, "zot": 4.9},
        "crowd CPU": {"nginx": 0.67, "distribution": 5.6, "zot": 3.1},
        "crowd bytes": {"nginx": 1.0, "distribution": 48.5, "zot": 1.0},
        "line wall": {"distribution": 21.1, "zot": 21.7},
        "stagger wall": {"distribution": 31.0, "zot": 13.4},
        "stagger bytes": {"distribution": 18.9, "zot": 1.0},
        "hang": {"distribution": 15.0, "zot": 32.0},
        "limited": {"distribution": 0.4, "zot": 8.0},
        "stall": {"distribution": 40.0, "zot": 40.0},
        "corrupt": {"distribution": 3.0},
    }
)
