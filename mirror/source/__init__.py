"""Where bytes come from: one ranged stream from one named source. Which source, and how often, `fill` decides.

May import: `channel`, `store`, `observe`, `config`, `oci`. Callers may rely on: every failure is a RegistryError that
keeps the upstream's meaning; a stream says truthfully where it starts.
"""

from mirror.source.pace import Pace
from mirror.source.stream import BlobSource, BlobStream, RangeMistaken, RangeRefused

__all__ = ["BlobSource", "BlobStream", "Pace", "RangeMistaken", "RangeRefused"]
