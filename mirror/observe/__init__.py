"""What a replica tells about itself: metrics, logs, and the Cache-Status header.

May import: `config`, `oci`. Callers may rely on: observing never blocks and never fails a pull; label sets are closed.
"""
