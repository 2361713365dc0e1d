"""What was last known to have other copies in the fleet, for when the fleet cannot be asked."""

from __future__ import annotations

from mirror.oci.digest import Digest

_BITS = 21


class Spares:
    """A bit for each digest, shared by a few: good enough to prefer one to another, in 256 KiB."""

    def __init__(self) -> None:
        self._bits = bytearray(1 << (_BITS - 3))

    def note(self, digest: Digest, *, is_spare: bool) -> None:
        """Remember whether another replica has a digest too."""
        byte, bit = _place(digest)
        if is_spare:
            self._bits[byte] |= bit
        else:
            self._bits[byte] &= ~bit

    def __contains__(self, digest: Digest) -> bool:
        byte, bit = _place(digest)
        return bool(self._bits[byte] & bit)


def _place(digest: Digest) -> tuple[int, int]:
    number = int(digest.hex[:8], 16) >> (32 - _BITS)
    return number >> 3, 1 << (number & 7)
