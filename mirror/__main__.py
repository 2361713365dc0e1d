"""`python -m mirror` and the `layover` command."""

from __future__ import annotations

import sys

from mirror import cli
from mirror.demo import command as demo


def main() -> int:
    """Run the command that the command line names, and return its exit code."""
    return cli.main(others=(demo,))


if __name__ == "__main__":
    sys.exit(main())
