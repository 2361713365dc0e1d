"""Google's registries: an access token for an hour, by the `google-auth` of the extra `google`."""

from __future__ import annotations

import datetime as dt
import functools
import logging
from typing import Any, cast

from mirror.source.upstream.credentials.credential import Credential, CredentialError, usable
from mirror.source.upstream.credentials.leases import Lease, believed

_USER = "oauth2accesstoken"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TIMEOUT_SECONDS = 5


def fetch() -> Lease[Credential | None]:
    """Return the token of the application's default credentials; Google gives the same one to every registry.

    Raises:
        CredentialError: there are none, or Google says no.
    """
    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request

    # What it warns of is said by the error, once.
    logging.getLogger("google.auth").setLevel(logging.ERROR)
    request = cast("Request", functools.partial(Request(), timeout=_TIMEOUT_SECONDS))
    try:
        credentials: Any = google.auth.default(scopes=[_SCOPE], request=request)[0]
        credentials.refresh(request)
    except GoogleAuthError as error:
        # Its first argument is a message; others may be the answer that was not understood.
        said = f"{type(error).__name__}: {error.args[0] if error.args else ''}"
        raise CredentialError("provider google: Google gave no token", said) from None
    expiry = credentials.expiry
    # It is in UTC, and says nothing of it.
    left = (expiry.replace(tzinfo=dt.UTC) - dt.datetime.now(dt.UTC)).total_seconds() if expiry else 0
    # An instance that does not say whose token it lends calls it "default".
    email = getattr(credentials, "service_account_email", None) or ""
    account = f"google:{email}" if "@" in email else ""
    return Lease(usable("provider google", _USER, credentials.token or "")._replace(account=account), believed(left))
