"""Readers of one blob, each with a fate of its own."""
