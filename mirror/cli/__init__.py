"""`layover …`: one file a command, each with `add` (its arguments) and `run` (its exit code).

May import: everything below. Callers may rely on: exit code 0 for done, 1 for failed, 2 for wrong usage or
configuration; errors are one or two lines on standard error, never a traceback.
"""

from mirror.cli.main import main

__all__ = ["main"]
