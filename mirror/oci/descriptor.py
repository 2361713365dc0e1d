"""Content descriptors (OCI image specification, *Descriptors*)."""

from __future__ import annotations

from typing import NamedTuple

from mirror.oci.digest import Digest


class Descriptor(NamedTuple):
    """What a manifest says of something it refers to; `size` in bytes, None where the format has none (schema 1)."""

    digest: Digest
    size: int | None
    media_type: str
