"""As whom an upstream is asked: configured names, Docker's configuration and its helpers, and what clouds lend.

Knows nothing of challenges or tokens. Callers may rely on: nothing blocks the event loop, every wait is bounded, a
source that fails or hangs delays no other upstream's and is not asked again at once, and no secret reaches a log or an
error.
"""

from mirror.source.upstream.credentials.credential import Credential
from mirror.source.upstream.credentials.credentials import Credentials
from mirror.source.upstream.credentials.requirements import check

__all__ = ["Credential", "Credentials", "check"]
