"""Pulls through a real replica from registries that behave as those of the world do, well and badly."""
