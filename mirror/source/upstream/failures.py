"""From what went wrong on the wire to what a client is told, meanings kept apart."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from email.utils import parsedate_to_datetime

import aiohttp
import msgspec
from yarl import URL

from mirror.config import Upstream
from mirror.oci.errors import ErrorCode, Failure, RegistryError

RETRY_AFTER = 10
_LONGEST_RETRY_AFTER = 3600
_PHRASES = {
    Failure.TIMEOUT: "did not answer in time",
    Failure.REFUSED: "refused the connection",
    Failure.RESET: "broke the connection",
    Failure.DNS: "could not be found (DNS)",
    Failure.TLS: "failed the TLS handshake",
}


class _Detail(msgspec.Struct):
    code: str = ""


class _Errors(msgspec.Struct):
    errors: list[_Detail]


def unreachable(upstream: Upstream, host: str, failure: Failure) -> RegistryError:
    """Return the error for an upstream, dialled at `host`, that gave no usable answer."""
    return RegistryError(
        ErrorCode.UNAVAILABLE,
        f"upstream {upstream.name} at {host} {_PHRASES[failure]}",
        failure=failure,
        retry_after=RETRY_AFTER,
    )


def bad_redirect(upstream: Upstream, what: str) -> RegistryError:
    """Return the error for an upstream that leads where it may not, or nowhere."""
    text = f"upstream {upstream.name} {what}"
    return RegistryError(ErrorCode.UNAVAILABLE, text, failure=Failure.SERVER, retry_after=RETRY_AFTER)


@contextlib.asynccontextmanager
async def time_limit(upstream: Upstream, url: URL, seconds: float) -> AsyncIterator[None]:
    """Turn what takes longer than `seconds` into the error of an upstream that did not answer in time."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise unreachable(upstream, url.authority, Failure.TIMEOUT) from None


def failure_of(error: BaseException) -> Failure:
    """Return how a connection failed."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Failure.DNS
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return Failure.TLS
    if isinstance(error, asyncio.TimeoutError):
        return Failure.TIMEOUT
    if isinstance(error, aiohttp.ClientConnectorError):
        return Failure.REFUSED
    return Failure.RESET


def refusal(
    upstream: Upstream, status: int, headers: Mapping[str, str], body: bytes, unknown: ErrorCode
) -> RegistryError:
    """Return what an upstream's answer other than success means; `unknown` is the code for a plain 404."""
    code = _code(body)
    if status == 404:
        known = {ErrorCode.NAME_UNKNOWN, ErrorCode.MANIFEST_UNKNOWN, ErrorCode.BLOB_UNKNOWN}
        return RegistryError(
            ErrorCode(code) if code in known else unknown, f"upstream {upstream.name} does not have it"
        )
    if status == 429:
        after = retry_after(headers) or RETRY_AFTER
        text = f"upstream {upstream.name} limits its rate; try again in {after} s"
        return RegistryError(ErrorCode.TOOMANYREQUESTS, text, failure=Failure.TOO_MANY, retry_after=after)
    if status in {401, 403}:
        # A registry's own DENIED is its word; anything else at this status speaks of the mirror, not of the image.
        own = status == 403 and code == ErrorCode.DENIED
        text = f"upstream {upstream.name} denies the mirror access (status {status})"
        return RegistryError(ErrorCode.DENIED, text, failure=None if own else Failure.CREDENTIALS)
    after = retry_after(headers) or RETRY_AFTER
    text = f"upstream {upstream.name} answered with status {status}"
    return RegistryError(ErrorCode.UNAVAILABLE, text, failure=Failure.SERVER, retry_after=after)


def retry_after(headers: Mapping[str, str]) -> int | None:
    """Return the seconds that Retry-After names (RFC 9110 §10.2.3), within an hour; None if it names none."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return min(int(text[:9]), _LONGEST_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0, min(int(moment - time.time()) + 1, _LONGEST_RETRY_AFTER))


def _code(body: bytes) -> str:
    try:
        errors = msgspec.json.decode(body, type=_Errors).errors
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""
    return errors[0].code if errors else ""
