"""The door: parses a request once into a value, asks `pull`, and writes the answer as clients need it.

May import: `pull`, `channel`, `store`, `fleet`, `observe`, `config`, `oci`; never what decides. Callers may rely on:
every error leaves through one renderer, every byte of a blob by sendfile in slices, what was asked before in the same
bytes is answered as it would be the whole way, and a sibling is told nothing before its signature verified.
"""

from mirror.registry.door import Door

__all__ = ["Door"]
