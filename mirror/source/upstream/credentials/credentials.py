"""As whom the mirror asks each upstream."""

from __future__ import annotations

import functools
from concurrent.futures import Executor

from mirror.config import Upstream
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.source.upstream.credentials import azure, ecr, google, secret_file
from mirror.source.upstream.credentials.credential import Credential, CredentialError, usable
from mirror.source.upstream.credentials.docker_config import DockerConfig
from mirror.source.upstream.credentials.helper import Helpers
from mirror.source.upstream.credentials.leases import Ask, Lease, Leases

# Files are looked at again so long after the last time, if they are needed.
_FILE_SECONDS = 1.0
# A helper or a cloud that failed is asked again so long after, if it is needed.
_PAUSE_SECONDS = 15.0


class Credentials:
    """The credentials of all upstreams, each had when it is needed."""

    def __init__(self, executor: Executor) -> None:
        """Read files, run helpers and ask clouds in threads of `executor`, which such a call may hold for long."""
        self._passwords: Leases[Credential] = Leases(executor, _FILE_SECONDS)
        self._configs: Leases[DockerConfig] = Leases(executor, _FILE_SECONDS)
        self._lent: Leases[Credential | None] = Leases(executor, _PAUSE_SECONDS)
        self._helpers = Helpers()

    async def of(self, upstream: Upstream) -> Credential | None:
        """Return the credentials for an upstream; None where it is asked anonymously.

        Raises:
            RegistryError: there should be some, and they cannot be had now.
        """
        try:
            if upstream.provider:
                return await self._lent.get(_of_provider(upstream))
            if upstream.docker_config:
                return await self._of_docker(upstream)
            if upstream.password_file:
                return await self._passwords.get(_of_file(upstream))
            if upstream.username:
                return usable("password", upstream.username, upstream.password)
            return None
        except CredentialError as error:
            text = f"upstream {upstream.name}: {error}"
            raise RegistryError(ErrorCode.DENIED, text, failure=Failure.CREDENTIALS) from None

    def refused(self, upstream: Upstream, credential: Credential) -> None:
        """Hear that an upstream said no: what a helper or a cloud lent is fetched anew, at most once a minute."""
        if upstream.provider or upstream.docker_config:
            self._lent.refuse(credential)

    async def close(self) -> None:
        """End every helper that runs, and wait for nobody else."""
        self._helpers.stop()
        for leases in (self._passwords, self._configs, self._lent):
            await leases.close()

    async def _of_docker(self, upstream: Upstream) -> Credential | None:
        name = upstream.docker_config
        read = functools.partial(_read_config, name)
        config = await self._configs.get(Ask(upstream.label, name, f"docker_config {name}", read))
        for place in config.places(upstream):
            if isinstance(place, Credential):
                return place
            what = f"docker-credential-{place.helper}"
            call = functools.partial(self._helpers.get, place)
            credential = await self._lent.get(Ask(upstream.label, ("helper", place), what, call))
            if credential is not None:
                return credential
        return None


def _read_config(name: str) -> Lease[DockerConfig]:
    return Lease(DockerConfig.read(name), _FILE_SECONDS)


def _of_file(upstream: Upstream) -> Ask[Credential]:
    username, name = upstream.username, upstream.password_file

    def read() -> Lease[Credential]:
        secret = secret_file.read("password_file", name).removesuffix("\n").removesuffix("\r")
        return Lease(usable(f"password_file {name}", username, secret), _FILE_SECONDS)

    return Ask(upstream.label, (username, name), f"password_file {name}", read)


def _of_provider(upstream: Upstream) -> Ask[Credential | None]:
    what = f"provider {upstream.provider}"
    if upstream.provider == "ecr":
        registry = ecr.registry_of(upstream)
        if registry is None:
            raise CredentialError(f"{what}: neither its name nor its url is that of such a registry")
        return Ask(upstream.label, ("ecr", registry), what, functools.partial(ecr.fetch, registry))
    if upstream.provider == "google":
        return Ask(upstream.label, ("google",), what, google.fetch)
    key = ("azure", upstream.name, upstream.url)
    return Ask(upstream.label, key, what, functools.partial(azure.fetch, upstream))
