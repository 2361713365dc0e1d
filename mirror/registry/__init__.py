"""The door: parses a request once into a value, asks `pull`, and writes the answer as clients need it.

May import: `pull`, `channel`, `store`, `observe`, `config`, `oci`; never what decides. Callers may rely on: every error
leaves through one renderer, every byte of a blob by sendfile in slices, and what was asked before in the same bytes is
answered as it would be the whole way.
"""

from mirror.registry.door import Door

__all__ = ["Door"]
