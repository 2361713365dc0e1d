"""What credentials need that no configuration file can show by itself: checked before anything starts."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from mirror.config import ConfigError, Upstream
from mirror.source.upstream.credentials import ecr
from mirror.source.upstream.credentials.credential import CredentialError, usable

# Provider → the modules that its extra, of the same name, installs.
_MODULES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"ecr": ("boto3",), "google": ("google.auth", "requests"), "azure": ("azure.identity",)}
)
_SOME_SECRET = "x"  # noqa: S105 - stands for one that is in a file


def check(upstreams: Iterable[Upstream]) -> None:
    """Check what would not mend itself while the mirror runs. Files are not: they may come later.

    Raises:
        ConfigError: a provider's library is not installed, a provider does not fit its upstream, or a name or password
            cannot be sent.
    """
    for upstream in upstreams:
        key = f'upstreams."{upstream.label}"'
        if upstream.provider:
            missing = [each for each in _MODULES[upstream.provider] if not _is_installed(each)]
            if missing:
                text = f"needs {missing[0]}, which is not installed: install layover[{upstream.provider}]"
                raise ConfigError(f"{key}.provider: {text}")
        if upstream.provider == "ecr" and "*" not in upstream.label and ecr.registry_of(upstream) is None:
            text = "ecr is for public.ecr.aws and names such as 123456789012.dkr.ecr.eu-west-1.amazonaws.com"
            raise ConfigError(f"{key}.provider: {text}")
        if upstream.username:
            try:
                usable(f"{key}.username", upstream.username, _SOME_SECRET)
                usable(f"{key}.password", upstream.username, upstream.password or _SOME_SECRET)
            except CredentialError as error:
                raise ConfigError(str(error)) from None


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
