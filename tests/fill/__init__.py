"""Fills as clients and upstreams see them: interrupted, lied to, followed byte by byte."""
