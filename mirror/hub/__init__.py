"""What decides: tags and their freshness, one flight for all who ask the same, links, and where a blob is read.

May import: `fill`'s line and below. Callers may rely on: one request to an upstream serves everybody who waits for it,
and what is held is served when the upstream fails.
"""

from mirror.hub.hub import LocalHub, Services

__all__ = ["LocalHub", "Services"]
