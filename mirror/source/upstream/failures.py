"""From what went wrong on the wire to what a client is told, meanings kept apart."""

from __future__ import annotations

import asyncio
import contextlib
import socket
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
# For how long a limit is taken to last that does not say so: seldom enough to be calm, and soon enough to be fresh.
LIMITED_SECONDS = 4
LONGEST_RETRY_AFTER = 3600
# Whoever limits or is overloaded for longer than this is not asked again while somebody waits.
LONGEST_WAIT = 3
_PASSING_STATUSES = frozenset({500, 502, 503, 504})
_PASSING_FAILURES = frozenset({Failure.REFUSED, Failure.RESET})
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


class UpstreamError(RegistryError):
    """What became of a request to an upstream.

    `host` is where it failed, empty where nobody can be blamed; `answered` the HTTP status that came from there, 0 if
    none came. `is_passing`: another attempt may well go better. `wait` is the seconds that the upstream asks to leave
    before it, None if it did not say.
    """

    host = ""
    answered = 0
    is_passing = False
    wait: int | None = None

    def again(self) -> UpstreamError:
        """Return the same, to be raised once more where nobody asked again."""
        error = UpstreamError(self.code, self.message, failure=self.failure, retry_after=self.retry_after)
        error.host, error.answered = self.host, self.answered
        return error


def unreachable(upstream: Upstream, host: str, failure: Failure) -> UpstreamError:
    """Return the error for an upstream, dialled at `host`, that gave no usable answer."""
    text = f"upstream {upstream.name} at {host} {_PHRASES[failure]}"
    error = _failed(text, failure)
    error.host, error.is_passing = host, failure in _PASSING_FAILURES
    return error


def late(upstream: Upstream, host: str) -> UpstreamError:
    """Return the error for a request, to `host` at first, whose time is over, wherever it was spent."""
    error = unreachable(upstream, host, Failure.TIMEOUT)
    error.host = ""
    return error


def unusable(upstream: Upstream, what: str, answered: int = 0) -> UpstreamError:
    """Return the error for an upstream that answered (with a status) what nobody can use, or leads nowhere."""
    error = _failed(f"upstream {upstream.name} {what}", Failure.SERVER)
    error.answered = answered
    return error


def bad_redirect(upstream: Upstream, what: str) -> UpstreamError:
    """Return the error for an upstream that leads where it may not, or nowhere."""
    return unusable(upstream, what)


def garbled(upstream: Upstream, host: str, *, is_passing: bool) -> UpstreamError:
    """Return the error for a `host` whose answer is no HTTP, or has a head beyond all bounds.

    `is_passing` if it may be what was left over from an answer before it.
    """
    error = _failed(f"upstream {upstream.name} at {host} sent something that is no HTTP answer", Failure.RESET)
    error.host, error.is_passing = host, is_passing
    return error


def crowded(upstream: Upstream) -> UpstreamError:
    """Return the error for a request whose turn did not come: the upstream was not asked."""
    return _failed(f"upstream {upstream.name} is being asked for too much at a time", Failure.TIMEOUT)


def _failed(text: str, failure: Failure) -> UpstreamError:
    return UpstreamError(ErrorCode.UNAVAILABLE, text, failure=failure, retry_after=RETRY_AFTER)


@contextlib.asynccontextmanager
async def time_limit(upstream: Upstream, url: URL, seconds: float) -> AsyncIterator[None]:
    """Turn what takes longer than `seconds` into the error of an upstream that did not answer in time."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise unreachable(upstream, url.authority, Failure.TIMEOUT) from None


def failure_of(error: BaseException, *, is_tls: bool = False) -> Failure:
    """Return how a connection failed, on which TLS was to be spoken or not."""
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return Failure.DNS
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return Failure.TLS
    if isinstance(error, TimeoutError):
        return Failure.TIMEOUT
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, TimeoutError):
            return Failure.TIMEOUT
        # One that is taken and ended again before it is whole ends within the handshake.
        is_ended = isinstance(error.os_error, ConnectionResetError | ConnectionAbortedError)
        return Failure.TLS if is_tls and is_ended else Failure.REFUSED
    return Failure.RESET


def refusal(
    upstream: Upstream, status: int, headers: Mapping[str, str], body: bytes, unknown: ErrorCode, host: str = ""
) -> UpstreamError:
    """Return what an answer other than success, from `host`, means; `unknown` is the code for a plain 404."""
    wait = retry_after(headers)
    usual = LIMITED_SECONDS if status == 429 else RETRY_AFTER
    error = _refusal(upstream, status, usual if wait is None else max(1, wait), _code(body), unknown)
    error.host, error.answered, error.wait = host, status, wait
    error.is_passing = status in {*_PASSING_STATUSES, 429} and (wait or 0) <= LONGEST_WAIT
    return error


def _refusal(upstream: Upstream, status: int, after: int, code: str, unknown: ErrorCode) -> UpstreamError:
    if status == 404:
        known = {ErrorCode.NAME_UNKNOWN, ErrorCode.MANIFEST_UNKNOWN, ErrorCode.BLOB_UNKNOWN}
        text = f"upstream {upstream.name} does not have it"
        return UpstreamError(ErrorCode(code) if code in known else unknown, text)
    if status == 429:
        text = f"upstream {upstream.name} limits its rate; try again in {after} s"
        return UpstreamError(ErrorCode.TOOMANYREQUESTS, text, failure=Failure.TOO_MANY, retry_after=after)
    if status in {401, 403}:
        # A registry's own DENIED is its word; anything else at this status speaks of the mirror, not of the image.
        own = status == 403 and code == ErrorCode.DENIED
        text = f"upstream {upstream.name} denies the mirror access (status {status})"
        return UpstreamError(ErrorCode.DENIED, text, failure=None if own else Failure.CREDENTIALS)
    text = f"upstream {upstream.name} answered with status {status}"
    return UpstreamError(ErrorCode.UNAVAILABLE, text, failure=Failure.SERVER, retry_after=after)


def retry_after(headers: Mapping[str, str]) -> int | None:
    """Return the seconds that Retry-After names (RFC 9110 §10.2.3), within an hour; None if it names none."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return min(int(text[:9]), LONGEST_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0, min(int(moment - time.time()) + 1, LONGEST_RETRY_AFTER))


def _code(body: bytes) -> str:
    try:
        errors = msgspec.json.decode(body, type=_Errors).errors
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""
    return errors[0].code if errors else ""
