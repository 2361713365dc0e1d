"""Who is asked as whom, as a name that replicas may tell one another."""

from __future__ import annotations

import hmac
from collections.abc import Callable

_PURPOSE = "layover scope"
_LENGTH = 24


class Scopes:
    """Fingerprints of upstreams' addresses and of who asks there.

    Two replicas have the same one only if they ask the same place with the same credentials, or as the same account of
    a cloud, or both as nobody. It is made with the fleet's secret: from it alone nobody can tell, or try out, who.
    """

    def __init__(self, secret: Callable[[], str]) -> None:
        """Ask `secret` for the fleet's, each time."""
        self._secret = secret

    def of(self, identity: str, *urls: str) -> str:
        """Return the fingerprint of asking at `urls`, in order, as `identity`, which is empty for nobody."""
        text = "\n".join((_PURPOSE, identity, *urls))
        return hmac.digest(self._secret().encode(), text.encode(), "sha256").hex()[:_LENGTH]
