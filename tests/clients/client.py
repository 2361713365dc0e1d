"""What every client under test can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from tests.clients.machine import Machine


class Client(ABC):
    """A client on a machine of its own, configured to pull through one mirror.

    Each call raises AssertionError with the client's output when the client fails or takes too long.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @abstractmethod
    def pull(self, reference: str) -> None:
        """Pull an image, such as `docker.io/library/sample:latest`, and keep it."""

    @abstractmethod
    def digest(self, reference: str) -> str:
        """Return the digest of the index under which the client keeps the pulled image."""

    @abstractmethod
    def forget(self, reference: str) -> None:
        """Remove the image and its content, so that the next pull fetches everything again."""

    def close(self) -> None:
        """End the client's daemon, if it has one, and remove all that it stored."""
        self._machine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Runtime(Client):
    """A client that also runs what it pulled."""

    @abstractmethod
    def run(self, reference: str) -> str:
        """Run the pulled image without a network and return what it printed."""
