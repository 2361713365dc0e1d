"""Azure's registries: an identity's token traded for the registry's, by the `azure-identity` of the extra `azure`."""

from __future__ import annotations

import base64
import logging
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from mirror.config import Upstream
from mirror.source.upstream.credentials.credential import Credential, CredentialError, usable
from mirror.source.upstream.credentials.leases import Lease, believed

# The user name of whoever comes with a token of the registry's own.
_USER = "00000000-0000-0000-0000-000000000000"
_SCOPE = "https://containerregistry.azure.net/.default"
_CONNECT_SECONDS = 3
_READ_SECONDS = 5
_LONGEST_ANSWER = 2**16
_DOMAINS = (".azurecr.io", ".azurecr.cn", ".azurecr.us")

Claims = TypeVar("Claims")


class _Answer(msgspec.Struct):
    refresh_token: str


class _Life(msgspec.Struct):
    exp: float
    iat: float


class _Principal(msgspec.Struct):
    tid: str
    oid: str


def fetch(upstream: Upstream) -> Lease[Credential | None]:
    """Return a registry's refresh token, for the identity that environment, workload, instance or `az login` lend.

    Raises:
        CredentialError: there is no identity, or the registry does not know it.
    """
    from azure.core.exceptions import AzureError
    from azure.identity import DefaultAzureCredential

    # What it warns of is said by the error, once.
    logging.getLogger("azure.identity").setLevel(logging.ERROR)
    try:
        with DefaultAzureCredential(connection_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS) as identity:
            token = identity.get_token(_SCOPE).token
    except (AzureError, ValueError) as error:
        raise CredentialError("provider azure: there is no identity", f"{type(error).__name__}: {error}") from None
    try:
        status, body = _post(upstream, token)
    except AzureError as error:
        text = "provider azure: the registry's token exchange cannot be reached"
        raise CredentialError(text, type(error).__name__) from None
    if status != 200:
        raise CredentialError(f"provider azure: the registry's token exchange answered with status {status}")
    try:
        refresh_token = msgspec.json.decode(body, type=_Answer).refresh_token
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise CredentialError("provider azure: the registry's token exchange answered without a token") from None
    principal, life = _claims(token, _Principal), _claims(refresh_token, _Life)
    account = "" if principal is None else f"azure:{principal.tid}:{principal.oid}"
    # How long it is good for, as its own clock counts; 0 where it says nothing.
    seconds = 0.0 if life is None else life.exp - life.iat
    return Lease(usable("provider azure", _USER, refresh_token)._replace(account=account), believed(seconds))


def _post(upstream: Upstream, token: str) -> tuple[int, bytes]:
    """Trade an identity's token at the registry itself; return the answer's status and the beginning of its body."""
    from azure.core.pipeline.transport import RequestsTransport
    from azure.core.rest import HttpRequest

    host = urlsplit(upstream.url).hostname or ""
    service = next((each for each in (upstream.name, host) if each.endswith(_DOMAINS)), host)
    form = {"grant_type": "access_token", "service": service, "access_token": token}
    with RequestsTransport(
        connection_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        connection_verify=upstream.ca_file or True,
    ) as transport:
        # It follows no redirect, so the token goes nowhere else.
        answer = transport.send(HttpRequest("POST", f"{upstream.url}/oauth2/exchange", data=form), stream=True)
        body = bytearray()
        for piece in answer.iter_raw():
            body += piece
            if len(body) > _LONGEST_ANSWER:
                break
        answer.close()
        return answer.status_code, bytes(body)


def _claims(token: str, kind: type[Claims]) -> Claims | None:
    """Return what a token says of itself; None where it says nothing."""
    try:
        part = token.split(".")[1]
        return msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)), type=kind)
    except (IndexError, ValueError, msgspec.MsgspecError, RecursionError):
        return None
