"""The one error tree, and the one table from error code to HTTP status (OCI distribution, *Error Codes*)."""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """Error codes that the door answers with: the specification's, and two of Docker's older list for what it lacks."""

    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    DENIED = "DENIED"
    DIGEST_INVALID = "DIGEST_INVALID"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    NAME_INVALID = "NAME_INVALID"
    NAME_UNKNOWN = "NAME_UNKNOWN"
    TOOMANYREQUESTS = "TOOMANYREQUESTS"
    UNSUPPORTED = "UNSUPPORTED"
    RANGE_INVALID = "RANGE_INVALID"
    UNAVAILABLE = "UNAVAILABLE"

    @property
    def status(self) -> int:
        """The HTTP status that goes with the code."""
        return _STATUS[self]


_STATUS = {
    ErrorCode.BLOB_UNKNOWN: 404,
    ErrorCode.DENIED: 403,
    ErrorCode.DIGEST_INVALID: 400,
    ErrorCode.MANIFEST_INVALID: 400,
    ErrorCode.MANIFEST_UNKNOWN: 404,
    ErrorCode.NAME_INVALID: 400,
    ErrorCode.NAME_UNKNOWN: 404,
    ErrorCode.TOOMANYREQUESTS: 429,
    ErrorCode.UNSUPPORTED: 405,
    ErrorCode.RANGE_INVALID: 416,
    ErrorCode.UNAVAILABLE: 503,
}


class Failure(StrEnum):
    """How an upstream failed; the closed set behind `detail=stale-X` and the `status` label of metrics."""

    TOO_MANY = "429"
    SERVER = "5xx"
    TIMEOUT = "timeout"
    REFUSED = "refused"
    RESET = "reset"
    DNS = "dns"
    TLS = "tls"
    CREDENTIALS = "credentials"
    QUOTA = "quota"
    DELETED = "deleted"


class LayoverError(Exception):
    """Anything that Layover itself reports; its text is one clear sentence for a user."""


class RegistryError(LayoverError):
    """What a client of the registry is told.

    `failure` is set when it is an upstream's outage rather than its word: what is held may then be served stale.
    `retry_after` is in seconds. `is_remembered`: the upstream said so a moment ago, and was not asked again.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        failure: Failure | None = None,
        retry_after: int | None = None,
        is_remembered: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.failure = failure
        self.retry_after = retry_after
        self.is_remembered = is_remembered

    @property
    def status(self) -> int:
        """The HTTP status that goes with the error."""
        return self.code.status
