"""What goes from the store so that it stays under its mark: what is missed least, and the fleet's last copies last.

May import: `source`, `store`, `fleet`, `observe`, `config`, `oci`. Callers may rely on: no pull waits for it longer
than for room; who reads what goes reads on; what is pinned, open or promised to another replica stays.
"""

from mirror.eviction.adviser import Adviser
from mirror.eviction.consent import Consent
from mirror.eviction.ghost import Advice
from mirror.eviction.janitor import Janitor
from mirror.eviction.offers import Offers

__all__ = ["Advice", "Adviser", "Consent", "Janitor", "Offers"]
