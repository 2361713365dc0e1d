"""A name and a secret, and why there are none."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from mirror.config import Secret
from mirror.oci.errors import LayoverError

# Google's: the password is a whole JSON document, or that in base64, which tools wrap.
_SECRETS_OF_LINES = frozenset({"_json_key", "_json_key_base64"})
# Docker's user whose secret is an identity token.
_TRADER = "<token>"
_LONGEST_SHOWN = 200


class Credential(NamedTuple):
    """What an upstream is told; the secret is a token to trade for others (an identity token) where `is_token`.

    `account` is to whom the secret was lent for a while, as the lender names them; empty where that is not known.
    """

    username: str
    secret: Secret
    is_token: bool = False
    account: str = ""

    @property
    def fingerprint(self) -> str:
        """A short name of it, the same on every replica and after every restart, that does not give it away."""
        return _short(f"{len(self.username)}:{self.username}:{self.secret}")

    @property
    def identity(self) -> str:
        """A short name of who asks with it: the account, with whichever secret, where that is known."""
        return _short(f"account:{self.account}") if self.account else self.fingerprint

    def __repr__(self) -> str:
        return f"Credential({self.username!r}, {self.fingerprint})"


class CredentialError(LayoverError):
    """Why credentials cannot be had now; `detail`, what someone else's program or service said, is for logs alone."""

    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__("".join(each if each.isprintable() else ascii(each)[1:-1] for each in text))
        # What looks like data may hold a secret.
        self.detail = "" if "{" in detail else _printable(detail)


def usable(what: str, username: str, secret: str, *, is_token: bool = False) -> Credential:
    """Return the credential of a name and a secret that were read from `what`.

    Raises:
        CredentialError: they cannot be sent, or are not what was meant.
    """
    if not secret:
        raise CredentialError(f"{what}: is empty")
    if ":" in username or not username.isprintable():
        raise CredentialError(f"{what}: the user name holds a colon or a character that cannot be printed")
    checked = secret.translate({9: " ", 10: " ", 13: " "}) if username in _SECRETS_OF_LINES else secret
    if not checked.isprintable():
        raise CredentialError(f"{what}: holds a line break or another character that cannot be printed")
    return Credential(username, Secret(secret), is_token or username == _TRADER)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _printable(text: str) -> str:
    """Return the beginning of a foreign text as one line."""
    shown = "".join(each if each.isprintable() else " " for each in text[: 4 * _LONGEST_SHOWN])
    return " ".join(shown.split())[:_LONGEST_SHOWN]
