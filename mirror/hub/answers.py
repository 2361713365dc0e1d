"""What upstreams answer, asked once by all replicas that ask the same places as the same caller.

Without a fleet, and while it is away, everybody asks for himself. What another replica was told is no permission:
whether it may be served is each replica's own `Visibility`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

import msgspec

from mirror.config import Upstream
from mirror.fleet import Alone, Coordinator, Posted, Turn, allowance
from mirror.hub.patience import LONGEST_SECONDS, Patience
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source.upstream import Scopes

# An answer that is too old to be believed still tells who has what it was about.
REMEMBERED_SECONDS = 86_400.0
# Newer than an answer is what was asked for so much later: replicas agree on the time no better.
MOMENT_SECONDS = 0.001


class Pointed(msgspec.Struct, frozen=True, array_like=True, tag="tag"):
    """A tag points to a digest; `holder` is the identity of a replica that has it, empty if there may be none."""

    digest: Digest
    holder: str = ""


class Kept(msgspec.Struct, frozen=True, array_like=True, tag="manifest"):
    """A repository has a manifest, and so has a replica by now."""

    holder: str


class Judged(msgspec.Struct, frozen=True, array_like=True, tag="verdict"):
    """A repository was found to be public or private."""

    is_private: bool


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refusal"):
    """The upstream has nothing by that name, or denies it."""

    code: ErrorCode
    failure: Failure | None = None

    def error(self, upstream: Upstream) -> RegistryError:
        """Return what the replica was told that asked."""
        does = "does not have it" if self.code.status == 404 else "denies the mirror access"
        text = f"upstream {upstream.name} {does}"
        return RegistryError(self.code, text, failure=self.failure, is_remembered=True)


Answer = TypeVar("Answer", Pointed, Kept, Judged)


class Question(Generic[Answer]):
    """Something that an upstream knows: `told` by another replica, which asked `at` (`time.time`), or to be asked."""

    def __init__(self, told: Answer | Refused | None = None, at: float = math.inf) -> None:
        self.told: Answer | Refused | None = told
        self.at = at
        self.answer: Answer | Refused | None = None
        self.seconds = 0.0

    @property
    def age(self) -> float:
        """How many seconds ago the upstream said so; 0 for what this replica asked itself."""
        return max(0.0, time.time() - self.at)

    def answered(self, answer: Answer | Refused, seconds: float = REMEMBERED_SECONDS) -> None:
        """Let other replicas know for so long what the upstream answered."""
        self.answer, self.seconds = answer, seconds

    def failed(self, error: RegistryError, seconds: float) -> None:
        """Let other replicas know for so long that the upstream refused, if that is what it did."""
        if error.status == 404 or error.code is ErrorCode.DENIED:
            self.answered(Refused(error.code, error.failure), seconds)


class Answers:
    """The questions of one replica and the answers of all."""

    def __init__(
        self, coordinator: Coordinator, scopes: Scopes, identity: Callable[[Upstream], Awaitable[str]]
    ) -> None:
        """Share by `coordinator`; `identity` tells as whom an upstream is asked, `scopes` what others may know of that.

        `purged_at`, to be set, tells before which moment (fleet time) nothing is believed of a name in a repository.
        """
        self._coordinator = coordinator
        self._scopes = scopes
        self._identity = identity
        self.purged_at: Callable[[Repository, str], float] = lambda _repository, _name: 0.0
        self._telling: set[asyncio.Task[None]] = set()

    @classmethod
    def unshared(cls) -> Answers:
        """Return those of a replica without a fleet."""

        async def nobody(_: Upstream) -> str:
            return ""

        return cls(Alone("", ""), Scopes(str), nobody)

    @property
    def replica(self) -> str:
        """The identity of this replica."""
        return self._coordinator.identity

    async def close(self) -> None:
        """Say what is yet to be said."""
        if self._telling:
            await asyncio.wait(self._telling)

    @contextlib.asynccontextmanager
    async def ask(
        self,
        kind: type[Answer],
        upstream: Upstream,
        repository: Repository,
        name: str = "",
        *,
        since: float = -math.inf,
        patience: Patience | None = None,
    ) -> AsyncIterator[Question[Answer]]:
        """Yield what another replica was told later than `since` (`time.time`), or what this one is to ask itself.

        While another one asks, that is waited for, at most 5 s; `patience` is told that it is another one's affair.
        """
        identity = await self._identity(upstream)
        scope = self._scopes.of(identity, *upstream.endpoints, upstream.url)
        newer_than = max(self._coordinator.time - (time.time() - since), self.purged_at(repository, name))
        topic = f"{kind.__struct_config__.tag}:{scope}:{repository.name}:{name}"
        with contextlib.nullcontext() if patience is None else patience.elsewhere():
            asked = await self._coordinator.consult(topic, newer_than, LONGEST_SECONDS)
        if isinstance(asked, Posted):
            age = max(0.0, self._coordinator.time - asked.at)
            yield Question(_decoded(kind, asked.value), time.time() - age)
            return
        question, began_at = Question[Answer](), self._coordinator.time
        try:
            yield question
        finally:
            if asked.fence or self._coordinator.is_up:
                self._tell(self._end(asked, question, began_at, upstream, identity))

    async def _end(
        self, turn: Turn, question: Question[Answer], began_at: float, upstream: Upstream, identity: str
    ) -> None:
        # Credentials that came or went meanwhile: nobody knows as whom the upstream was asked.
        is_same = await self._identity(upstream) == identity
        with allowance():
            if question.answer is None or question.seconds <= 0 or not is_same:
                await self._coordinator.leave(turn)
            else:
                value = msgspec.msgpack.encode(question.answer, enc_hook=str)
                await self._coordinator.post(turn, value, began_at, min(question.seconds, REMEMBERED_SECONDS))

    def _tell(self, telling: Coroutine[None, None, None]) -> None:
        """Have something said that nobody waits for."""
        task = asyncio.create_task(telling)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)


def _decoded(kind: type[Answer], value: bytes) -> Answer | Refused | None:
    """Return what another replica posted; None for what another release may understand."""
    try:
        told: Answer | Refused = msgspec.msgpack.decode(value, type=kind | Refused, dec_hook=_parsed)
    except (msgspec.MsgspecError, ValueError):
        return None
    return told


def _parsed(_: type, text: Any) -> Digest:
    return Digest.parse(text)
