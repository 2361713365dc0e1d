"""A running replica, as the commands ask it: through its admin port."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from mirror.config import ConfigError, load
from mirror.oci.errors import LayoverError

_CONNECT_SECONDS = 5.0
# A purge of a large store reads all of its index.
_ANSWER_SECONDS = 300.0
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - where a server listens, not this program


class CommandError(LayoverError):
    """The replica does not do what was asked; the text says why, and what to do."""


class Remote(msgspec.Struct, frozen=True):
    """Where a replica's admin port is, and the token that it may want."""

    server: str
    token: str

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Remote:
        """Return the replica that the flags name, or the local one.

        Raises:
            ConfigError: a flag, the token's file or the local configuration is wrong.
        """
        server, token = arguments.server, _secret("--token-file", arguments.token_file)
        if server is not None:
            if not server.startswith(("http://", "https://")):
                raise ConfigError(f"--server {server}: write a URL such as http://127.0.0.1:5001")
            return cls(server.rstrip("/"), token)
        # The local replica is configured as this command would be.
        settings = load(None, os.environ).server
        address = settings.admin_listen
        host = (
            "127.0.0.1" if address.host in _EVERYWHERE else f"[{address.host}]" if ":" in address.host else address.host
        )
        if not token:
            own = Path(settings.admin_token_file) if settings.admin_token_file else None
            token = settings.admin_token or _secret("server.admin_token_file", own)
        return cls(f"http://{host}:{address.port}", token)

    def ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Return the answer to a request of the API.

        Raises:
            ConfigError: it says that the question is wrong.
            CommandError: there is none, or it is another error.
        """
        return asyncio.run(self._ask(method, path, query or {}, body))

    async def _ask(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, str] | None
    ) -> dict[str, Any]:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS, sock_connect=_CONNECT_SECONDS)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        url = f"{self.server}/api/v1{path}"
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
                session.request(method, url, params=query, json=body, allow_redirects=False) as answer,
            ):
                status, text = answer.status, await answer.text()
        except TimeoutError:
            raise CommandError(f"the replica at {self.server} does not answer; see its log") from None
        except (aiohttp.ClientError, ValueError) as error:
            raise CommandError(_unreachable(self.server, error)) from None
        return self._read(status, text)

    def _read(self, status: int, text: str) -> dict[str, Any]:
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict) or (status != 200 and "error" not in found):
            raise CommandError(f"{self.server} is no admin port of Layover (status {status}); name it with --server")
        if status == 401:
            raise CommandError(f"{self.server} wants a token, and not this one: give it with --token-file")
        if status == 400:
            raise ConfigError(str(found["error"]))
        if status != 200:
            raise CommandError(str(found["error"]))
        return found


def _unreachable(server: str, error: Exception) -> str:
    import aiohttp

    why = error.os_error.strerror if isinstance(error, aiohttp.ClientConnectorError) else None
    return (
        f"no replica answers at {server} ({why or str(error) or type(error).__name__}): "
        "is it running? Another one is named with --server"
    )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that every command has that asks a replica."""
    parser.add_argument("--server", metavar="URL", help="the replica's admin port; default: the local one")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="holds the admin port's token")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def print_json(answer: Mapping[str, Any]) -> None:
    """Print an answer for programs."""
    print(json.dumps(answer, indent=2, ensure_ascii=False))


def _secret(name: str, file: Path | None) -> str:
    if file is None:
        return ""
    try:
        return file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, ValueError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not text"
        raise ConfigError(f"{name} {file}: cannot be read: {why}") from None
