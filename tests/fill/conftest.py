"""One registry and one replica for all tests of this folder, and a registry for those that need their own."""

from tests.chaos.conftest import upstream
from tests.chaos.scene import registry, scene, shared_replica

__all__ = ["registry", "scene", "shared_replica", "upstream"]
