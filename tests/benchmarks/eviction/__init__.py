"""Eviction by simulation: traces from a seed, Layover's own plan and scores, and the policies of others beside them."""
