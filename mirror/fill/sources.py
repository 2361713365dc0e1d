"""The sources of one blob, one after the other, and what they agree on."""

from __future__ import annotations

from mirror.fill.lead import Bound
from mirror.fill.lender import Lender, SourceLost
from mirror.fill.supply import Supply
from mirror.observe.metrics import HubMetrics
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source import BlobSource, BlobStream, Pace, RangeMistaken, RangeRefused

_RETRY_AFTER = 10


class Sources:
    """Opens streams of one blob. `size` is what its descriptor or the first source says, None while unknown."""

    def __init__(
        self,
        supply: Supply,
        repository: Repository,
        digest: Digest,
        size: int | None,
        metrics: HubMetrics,
    ) -> None:
        """Ask whom `supply` chooses; `size` is what the descriptor says. `was_opened`: the upstream was asked."""
        self.size = size
        self.was_opened = False
        self._supply = supply
        self._repository = repository
        self._digest = digest
        self._metrics = metrics

    @property
    def label(self) -> str:
        """The name under which metrics know the upstream."""
        return self._supply.upstream.label

    @property
    def pace(self) -> Pace:
        """How many connections to the one that was chosen pay."""
        return (self._supply.current or self._supply.upstream).pace

    def bound(self, size: int, first_missing: int) -> Bound | None:
        """Return how far may be asked on, of a blob whose first missing byte that is; None: to its end."""
        return self._supply.bound(size, first_missing)

    async def choose(self, there: int = 0) -> Pace:
        """Choose a source, another than before if that one failed, and return how many connections to it pay.

        So many bytes are `there` already.
        """
        return (await self._supply.choose(there, self.size)).pace

    async def open(self, start: int, stop: int | None = None) -> BlobStream:
        """Return a stream from `start` up to `stop`, of the source that was chosen.

        It is from 0 to the end where the source knows no ranges.

        Raises:
            RegistryError: it does not have the blob, or failed.
            RangeRefused: it says that the blob ends before `start`.
            SourceLost: another is to be chosen.
        """
        source = self._supply.current
        if source is None:
            raise SourceLost("", "it was given up")
        if isinstance(source, Lender):
            return await self._lent(source, start, stop)
        stream = await self._open(source, start, stop)
        self.was_opened = True
        return stream

    async def open_any(self, start: int) -> BlobStream:
        """Return a stream from `start` to the end, of the first source chosen that does not fail.

        Raises:
            RegistryError: none has the blob; the upstream's error.
            RangeRefused: the upstream says that the blob ends before `start`.
        """
        while True:
            await self.choose()
            try:
                return await self.open(start)
            except SourceLost:
                continue

    def retried(self, error: RegistryError) -> None:
        """Count that a source is asked again for what did not come."""
        self._metrics.upstream_retries.labels(self.label, error.failure or Failure.SERVER).inc()

    async def _open(self, source: BlobSource, start: int, stop: int | None) -> BlobStream:
        try:
            return await self._of_that_size(source, start, stop)
        except (RangeRefused, RangeMistaken, WrongSize):
            if start or stop is None:
                raise
            # Whoever gets ranges wrong, or has nothing to take one from, may well have the whole.
            return await self._of_that_size(source, 0, None)

    async def _lent(self, source: Lender, start: int, stop: int | None) -> BlobStream:
        try:
            return await self._of_that_size(source, start, stop)
        except WrongSize as error:
            raise source.lost(error.message, is_to_blame=True) from None

    async def _of_that_size(self, source: BlobSource, start: int, stop: int | None) -> BlobStream:
        stream = await source.open(self._repository, self._digest, start, stop)
        if self.size is None:
            self.size = stream.size
        elif stream.size not in {None, self.size}:
            await stream.close(is_wrong=stop is None)
            raise WrongSize(source.label, stream.size or 0, self.size)
        return stream


class WrongSize(RegistryError):
    """A source has more or fewer bytes than the descriptor, or what came before, says."""

    def __init__(self, label: str, found: int, expected: int) -> None:
        text = f"{label} has {found} bytes for a blob of {expected}"
        super().__init__(ErrorCode.UNAVAILABLE, text, failure=Failure.SERVER, retry_after=_RETRY_AFTER)


def too_short(offset: int, size: int) -> RegistryError:
    """Return the error for a source that ended before it should."""
    text = f"the source ended after {offset} of {size} bytes"
    return RegistryError(ErrorCode.UNAVAILABLE, text, failure=Failure.RESET, retry_after=_RETRY_AFTER)


def crawling() -> RegistryError:
    """Return the error for a source that is too slow to be waited for."""
    text = "the source sends next to nothing"
    return RegistryError(ErrorCode.UNAVAILABLE, text, failure=Failure.TIMEOUT, retry_after=_RETRY_AFTER)
