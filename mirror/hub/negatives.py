"""What an upstream said it has not, or denies, remembered for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

from mirror.oci.errors import ErrorCode, RegistryError
from mirror.oci.reference import Repository

_MOST = 10_000


class Negatives:
    """404s by tag or listing, and denials by repository and by who asked; never of digests, and never outages."""

    def __init__(self, seconds: float) -> None:
        """Remember each for `seconds`."""
        self._seconds = seconds
        self._errors: dict[tuple[Hashable, ...], tuple[float, RegistryError]] = {}

    def check(self, repository: Repository, name: Hashable, identity: str) -> None:
        """Repeat what is remembered of a tag or a listing, or of its repository for whom `identity` stands for.

        Raises:
            RegistryError: the upstream said so within the last seconds.
        """
        keys: tuple[tuple[Hashable, ...], ...] = ((repository, name), (repository, None, identity))
        for key in keys:
            until, error = self._errors.get(key, (0.0, None))
            if error is not None and time.monotonic() < until:
                raise RegistryError(error.code, error.message, failure=error.failure, is_remembered=True)

    def note(
        self, repository: Repository, name: Hashable, identity: str, error: RegistryError, age: float = 0.0
    ) -> None:
        """Remember an answer, if it is of the kind that is; the upstream gave it `age` seconds ago."""
        until = time.monotonic() + self._seconds - age
        if error.status == 404:
            self._put((repository, name), until, error)
        elif error.code is ErrorCode.DENIED:
            self._put((repository, None, identity), until, error)

    def forget(self, is_meant: Callable[[str], bool]) -> None:
        """Forget what is remembered of some repositories."""
        for key in [key for key in self._errors if is_meant(str(key[0]))]:
            del self._errors[key]

    def _put(self, key: tuple[Hashable, ...], until: float, error: RegistryError) -> None:
        self._errors.pop(key, None)
        self._errors[key] = (until, error)
        while len(self._errors) > _MOST:
            del self._errors[next(iter(self._errors))]
