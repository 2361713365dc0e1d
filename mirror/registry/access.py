"""Which repositories may be pulled at all."""

from __future__ import annotations

from mirror.config import AccessSettings
from mirror.config.globs import compile_globs
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.oci.reference import Repository


class Access:
    """The globs of `[access]`; deny beats allow."""

    def __init__(self, settings: AccessSettings) -> None:
        self._allows = compile_globs(settings.allow)
        self._denies = compile_globs(settings.deny)

    def check(self, repository: Repository) -> None:
        """Let a repository pass.

        Raises:
            RegistryError: it is denied, or not allowed.
        """
        name = str(repository)
        if self._denies(name) or not self._allows(name):
            raise RegistryError(ErrorCode.DENIED, f"{name} may not be pulled through this mirror")
