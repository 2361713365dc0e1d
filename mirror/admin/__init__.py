"""The hub's own door: metrics, health, and the API for operators.

May import: `hub`'s lines below `pull`, never `pull`. Callers may rely on: it answers while every pull is stuck.
"""

from mirror.admin.access import Access
from mirror.admin.admin import Admin
from mirror.admin.api import Api

__all__ = ["Access", "Admin", "Api"]
