"""One registry and one replica for all tests of this folder."""

from tests.chaos.scene import registry, scene, shared_replica

__all__ = ["registry", "scene", "shared_replica"]
