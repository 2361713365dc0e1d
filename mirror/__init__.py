"""Layover: a pull-through caching mirror for container registries that works as one fleet across regions."""
