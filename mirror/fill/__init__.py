"""One transfer for many readers: from one source after the other into a growing file, verified before it ends.

May import: `source`, `channel`, `store`, `fleet`, `observe`, `config`, `oci`. Callers may rely on: no reader's doing
changes a fill; a source that breaks is resumed, or replaced, at the byte where it broke; bytes that do not verify never
get a final name.
"""

from mirror.fill.fill import Fill
from mirror.fill.lead import Leads
from mirror.fill.passage import Passage
from mirror.fill.precedence import SPARE_ROOM, Precedence
from mirror.fill.supply import Fleet, Supply
from mirror.fill.transfer import Transfer

__all__ = ["SPARE_ROOM", "Fill", "Fleet", "Leads", "Passage", "Precedence", "Supply", "Transfer"]
