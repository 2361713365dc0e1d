"""Where Redis is, and where this replica is reached: both may come from outside."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path

import structlog

from mirror.config import ConfigError, FleetSettings, Host, RedisUrl
from mirror.config.units import Address

_LONGEST = 2**16
_WILDCARDS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - they are looked for, not listened at


class RedisAddress:
    """The URL of the fleet's Redis, from the configuration or from a file that may be replaced at any time."""

    def __init__(self, settings: FleetSettings) -> None:
        """Use what is configured.

        Raises:
            ConfigError: a file that is named cannot be read, or says nothing that can be used.
        """
        self._file = settings.redis_url_file
        self._url = self._read() if self._file else settings.redis_url
        self._is_readable = True
        self._log = structlog.get_logger("layover.fleet")
        if settings.secret_file:
            _text("secret_file", settings.secret_file)

    def __call__(self) -> RedisUrl:
        """Return the URL."""
        return self._url

    def refresh(self) -> bool:
        """Read the file again, if there is one, and tell whether the URL is another. Blocks.

        A file that cannot be used changes nothing.
        """
        if not self._file:
            return False
        try:
            found = self._read()
        except ConfigError as error:
            if self._is_readable:
                self._log.error("the address of the fleet's Redis cannot be read", error=str(error))
            self._is_readable = False
            return False
        self._is_readable = True
        has_changed, self._url = found != self._url, found
        return has_changed

    def _read(self) -> RedisUrl:
        try:
            url = RedisUrl.parse(_text("redis_url_file", self._file))
        except ValueError as error:
            raise ConfigError(f"fleet.redis_url_file {self._file}: {error}") from None
        return url


async def own_url(configured: str, listen: Sequence[Address], redis: Host) -> str:
    """Return where siblings reach the data port: as configured, else its address on the way to Redis.

    Raises:
        OSError: there is no way to Redis.
    """
    if configured:
        return configured
    for address in listen:
        if address.host not in _WILDCARDS:
            return f"http://{address}"
    loop = asyncio.get_running_loop()
    (family, _, _, _, place), *_ = await loop.getaddrinfo(redis.name, redis.port, type=socket.SOCK_DGRAM)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(place)  # sends nothing, and chooses the address that would
        return f"http://{Address(probe.getsockname()[0], listen[0].port)}"


def _text(key: str, name: str) -> str:
    try:
        with Path(name).expanduser().open("rb") as file:
            text = file.read(_LONGEST).decode().strip()
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise ConfigError(f"fleet.{key} {name}: cannot be read: {reason}") from None
    if not text:
        raise ConfigError(f"fleet.{key} {name}: is empty")
    return text
