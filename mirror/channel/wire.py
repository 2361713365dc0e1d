"""Messages between a door and the hub: msgpack behind a length of four bytes."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from mirror.observe.metrics import Sample
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository

# A listing may be 16 MiB; nothing that is larger ever crosses.
LONGEST_FRAME = 32 * 2**20
_LENGTH_BYTES = 4


class AskManifest(msgspec.Struct, frozen=True, tag=True):
    """`Hub.manifest`."""

    repository: Repository
    reference: str


class Pulled(msgspec.Struct, frozen=True, tag=True):
    """`Hub.pulled`."""

    repository: Repository
    digest: Digest


class AskBlob(msgspec.Struct, frozen=True, tag=True):
    """`Hub.blob`."""

    repository: Repository
    digest: Digest


class AskBlobSize(msgspec.Struct, frozen=True, tag=True):
    """`Hub.blob_size`."""

    repository: Repository
    digest: Digest


class AskProgress(msgspec.Struct, frozen=True, tag=True):
    """`Hub.progress`."""

    fill: int
    offset: int


class OpenStream(msgspec.Struct, frozen=True, tag=True):
    """`Hub.stream`; answered with a `StreamOpened`."""

    repository: Repository
    digest: Digest
    start: int


class StreamOpened(msgspec.Struct, frozen=True):
    """A stream that can be read by its number."""

    stream: int
    size: int | None


class ReadStream(msgspec.Struct, frozen=True, tag=True):
    """`Stream.read`; one chunk an answer, so that a slow reader holds nothing back but itself."""

    stream: int


class StreamRead(msgspec.Struct, frozen=True):
    """What was read, and the size as it is known by now."""

    data: bytes
    size: int | None


class CloseStream(msgspec.Struct, frozen=True, tag=True):
    """`Stream.close`."""

    stream: int


class AskTags(msgspec.Struct, frozen=True, tag=True):
    """`Hub.tags`."""

    repository: Repository
    query: str


class AskReferrers(msgspec.Struct, frozen=True, tag=True):
    """`Hub.referrers`."""

    repository: Repository
    digest: Digest
    query: str


class AskSiblingBlob(msgspec.Struct, frozen=True, tag=True):
    """`Hub.sibling_blob`."""

    asker: str
    followers: list[str]
    digest: Digest


class AskSiblingManifest(msgspec.Struct, frozen=True, tag=True):
    """`Hub.sibling_manifest`."""

    repository: Repository
    digest: Digest


class AskSiblingHas(msgspec.Struct, frozen=True, tag=True):
    """`Hub.sibling_has`."""

    digest: Digest
    seconds: float


class Report(msgspec.Struct, frozen=True, tag=True):
    """`Hub.report`."""

    door: str
    samples: list[Sample]
    used: dict[str, float]


class AskChanges(msgspec.Struct, frozen=True, tag=True):
    """`Hub.changes`."""

    seen: str


SiblingQuestion = AskSiblingBlob | AskSiblingManifest | AskSiblingHas
Question = (
    AskManifest
    | Pulled
    | AskBlob
    | AskBlobSize
    | AskProgress
    | OpenStream
    | ReadStream
    | CloseStream
    | AskTags
    | AskReferrers
    | Report
    | AskChanges
    | SiblingQuestion
)


class Call(msgspec.Struct, frozen=True, tag=True):
    """A question under a number of the asker's choice."""

    number: int
    question: Question


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """The asker no longer waits for a call."""

    number: int


class Refusal(msgspec.Struct, frozen=True):
    """A RegistryError on its way."""

    code: ErrorCode
    message: str
    failure: Failure | None
    retry_after: int | None
    is_remembered: bool

    @classmethod
    def of(cls, error: RegistryError) -> Refusal:
        """Return what crosses of an error."""
        return cls(error.code, error.message, error.failure, error.retry_after, error.is_remembered)

    def revive(self) -> RegistryError:
        """Return the error."""
        return RegistryError(
            self.code,
            self.message,
            failure=self.failure,
            retry_after=self.retry_after,
            is_remembered=self.is_remembered,
        )


class Reply(msgspec.Struct, frozen=True):
    """The answer to a call: a value, or a refusal."""

    number: int
    value: msgspec.Raw = msgspec.Raw(b"\xc0")
    refusal: Refusal | None = None


def encode(value: Any) -> bytes:
    """Return `value` as msgpack."""
    return msgspec.msgpack.encode(value, enc_hook=str)


def revive(kind: type, text: Any) -> Any:
    """Return a value of one of our text types from its plain text: msgspec's `dec_hook`."""
    return kind(text)


def frame(message: Call | Cancel | Reply) -> bytes:
    """Return a message with its length in front."""
    payload = encode(message)
    return len(payload).to_bytes(_LENGTH_BYTES, "big") + payload


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """Return the next message's bytes; None when the other side has gone.

    Raises:
        ValueError: the length cannot be right.
    """
    try:
        length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
        if length > LONGEST_FRAME:
            raise ValueError(f"a frame of {length} bytes")
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
