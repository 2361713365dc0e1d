"""The test suite: mirrors `mirror/`, plus real upstreams, real clients, chaos, conformance and benchmarks."""
