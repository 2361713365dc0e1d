"""The hub's own door: metrics and health.

May import: `hub`'s lines below `pull`, never `pull`. Callers may rely on: it answers while every pull is stuck.
"""

from mirror.admin.admin import Admin

__all__ = ["Admin"]
