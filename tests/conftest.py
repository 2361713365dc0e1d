"""What holds for every test."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Have programs under test hear an interrupt, though a shell that runs tests in the background ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
