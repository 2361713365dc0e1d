"""How replicas know each other's requests: signed by the secret of their fleet, and answered with a proof of it."""

from __future__ import annotations

import hashlib
import hmac
import re
from enum import StrEnum
from typing import NamedTuple

SIGNATURE = "Layover-Sibling"
PROOF = "Layover-Proof"
CHAIN = "Layover-Chain"
# A request that is older, or of a later time, is refused.
SECONDS = 30.0
_VERSION = 1
_IDENTITY = "[0-9A-Za-z_-]{1,64}"
_IDENTITIES = f"(?:{_IDENTITY}(?:,{_IDENTITY})*)?"
_FORMAT = re.compile(
    f"v={_VERSION}; from=({_IDENTITY}); to=({_IDENTITY}); at=([0-9]{{1,15}}); epoch=([0-9]{{1,15}}); "
    f"for=({_IDENTITIES}); mac=([0-9a-f]{{64}})"
)
_CHAIN = re.compile(_IDENTITIES)
_LONGEST = 16 * 2**10


class Refusal(StrEnum):
    """Why a sibling's request is refused; the values are those of the `reason` label."""

    ALONE = "alone"
    MALFORMED = "malformed"
    FORGED = "forged"
    REDIRECTED = "redirected"
    EXPIRED = "expired"


class Question(NamedTuple):
    """What a request asks for, as it goes over the wire; `ranges` is its Range header, empty if there is none."""

    method: str
    target: str
    ranges: str


class Signature(NamedTuple):
    """Who asks whom, and when, in milliseconds of fleet time.

    `epoch` is the number of the last purge that the sender carried out: it wants nothing that is older. `followers` are
    the siblings that read what it asks for from itself: it wants nothing that comes from them. `mac` proves that a
    member of the fleet asks just this.
    """

    sender: str
    receiver: str
    at: int
    epoch: int = 0
    followers: tuple[str, ...] = ()
    mac: str = ""

    def header(self) -> str:
        """Return the value of the header."""
        sender, receiver, at, epoch, followers = self._claims
        return f"v={_VERSION}; from={sender}; to={receiver}; at={at}; epoch={epoch}; for={followers}; mac={self.mac}"

    def signed(self, question: Question, secret: str) -> Signature:
        """Return the signature of a question."""
        return self._replace(mac=self._mac(question, secret))

    def refusal(self, question: Question, secret: str, receiver: str, now: float) -> Refusal | None:
        """Say why `receiver` refuses a question at `now`, in seconds of fleet time; None if it is genuine."""
        if not hmac.compare_digest(self.mac, self._mac(question, secret)):
            return Refusal.FORGED
        if self.receiver != receiver:
            return Refusal.REDIRECTED
        return Refusal.EXPIRED if abs(now - self.at / 1000) > SECONDS else None

    @property
    def _claims(self) -> tuple[str, str, str, str, str]:
        return self.sender, self.receiver, str(self.at), str(self.epoch), ",".join(self.followers)

    def _mac(self, question: Question, secret: str) -> str:
        return _hash(secret, "question", *question, *self._claims)


def parse(header: str) -> Signature | None:
    """Return what a header says, genuine or not; None if it is malformed."""
    match = _FORMAT.fullmatch(header) if len(header) <= _LONGEST else None
    if match is None:
        return None
    followers = parse_chain(match[5]) or ()
    return Signature(match[1], match[2], int(match[3]), int(match[4]), followers, match[6])


def parse_chain(text: str) -> tuple[str, ...] | None:
    """Return the identities that a chain names, nearest first; None if it is malformed."""
    if len(text) > _LONGEST or _CHAIN.fullmatch(text) is None:
        return None
    return tuple(text.split(",")) if text else ()


def prove(signature: Signature, secret: str, chain: str | None) -> str:
    """Return what proves that the receiver of a genuine question answers it.

    `chain` says whom the bytes that it sends come from, None where they are all its own.
    """
    return _hash(secret, "answer", signature.mac, signature.receiver, "whole" if chain is None else f"growing {chain}")


def is_proven(proof: str, signature: Signature, secret: str, chain: str | None) -> bool:
    """Say whether an answer comes from whom the question was for."""
    expected = prove(signature, secret, chain)
    return hmac.compare_digest(_bytes(proof), _bytes(expected))


def _hash(secret: str, *fields: str) -> str:
    text = "\n".join((f"layover {_VERSION}", *fields))
    return hmac.digest(_bytes(secret), _bytes(text), hashlib.sha256).hex()


def _bytes(text: str) -> bytes:
    """Return a text as bytes, also one that came as bytes that are no text."""
    return text.encode(errors="surrogatepass")
