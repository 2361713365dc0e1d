"""Other replicas of the fleet, as sources: their files, whole or still growing, and their manifests.

May import: `source`, `fleet`, `observe`, `config`, `oci`. Callers may rely on: a sibling is believed only what proves
that it holds the fleet's secret and is the one that was asked; one that fails is left alone for a while.
"""

from mirror.source.sibling.blobs import SiblingBlob, SiblingBlobs
from mirror.source.sibling.client import SiblingError
from mirror.source.sibling.siblings import Siblings

__all__ = ["SiblingBlob", "SiblingBlobs", "SiblingError", "Siblings"]
