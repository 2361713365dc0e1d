"""Outages: which upstreams fail now, or which of their repositories. No I/O.

While one lasts, what is held is answered at once, and the upstream is asked on the quiet alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from mirror.oci.errors import Failure, RegistryError
from mirror.oci.reference import Repository

Name = TypeVar("Name", bound=Hashable)

_PAUSE_SECONDS = 1.5
_CREDENTIALS_PAUSE_SECONDS = 55.0
_FORGOTTEN_SECONDS = 600.0
_MOST_MET = 1000
_MOST_AT_ONCE = 4
# Failures that are of the upstream's address or of the caller's account, and so of all its repositories.
_EVERYWHERE = frozenset({Failure.REFUSED, Failure.DNS, Failure.TLS, Failure.TIMEOUT, Failure.TOO_MANY})
# An upstream that answers all the same is given up only when so many repositories of it fail.
_MANY_REPOSITORIES = 3


@dataclass(slots=True)
class _Pause:
    """Why somebody is not asked, and until when; `identity` is as whom the mirror asked."""

    failure: Failure
    until: float
    identity: str
    is_local: bool
    is_on_trial: bool = False


@dataclass(slots=True)
class _Met:
    """When a client last met the outage by asking for something, and when the upstream was last asked about it."""

    met_at: float
    probed_at: float


class Outage(Generic[Name]):
    """What of one upstream fails, met by asking for what has a `Name` in a repository, such as a tag.

    Every `now` is of one monotonic clock, in seconds.
    """

    def __init__(self) -> None:
        self._everywhere: _Pause | None = None
        self._repositories: dict[Repository, _Pause] = {}
        self._met: dict[tuple[Repository, Name], _Met] = {}

    @property
    def is_over(self) -> bool:
        """Whether nothing fails, as far as anybody who still pulls knows."""
        return self._everywhere is None and not self._repositories

    @property
    def depends_on_credentials(self) -> bool:
        """Whether other credentials could end some of it."""
        return any(pause.failure is Failure.CREDENTIALS for pause in self._repositories.values())

    def met(self, repository: Repository, name: Name, now: float) -> Failure | None:
        """Return why something cannot be asked for now, None if it can; a client is about to be answered."""
        own = self._repositories.get(repository)
        if self._everywhere is None:
            if own is None:
                return None
            if own.is_on_trial:
                own.is_on_trial = False
                return None
        failure = own.failure if own is not None else None
        self._note(repository, name, now)
        return failure or (self._everywhere.failure if self._everywhere is not None else None)

    def began(
        self,
        repository: Repository,
        name: Name,
        error: RegistryError,
        now: float,
        *,
        identity: str = "",
        is_local: bool = False,
    ) -> None:
        """Note that asking for something failed; `is_local` if others may be asked for all the same."""
        assert error.failure is not None
        known = self._repositories.get(repository)
        pause = _Pause(error.failure, now + _seconds(error), identity, is_local)
        self._repositories[repository] = pause
        self._note(repository, name, now)
        spreads = not is_local and self._spreads(error.failure, was_failing=known is not None)
        if error.failure is Failure.CREDENTIALS:
            self._end_everywhere()
        elif self._everywhere is not None or spreads:
            self._everywhere = _Pause(pause.failure, pause.until, identity, is_local)

    def answered(self, repository: Repository) -> None:
        """Note that the upstream gave a usable answer about a repository."""
        ended = self._repositories.pop(repository, None)
        self._end_everywhere()
        if ended is not None and ended.failure is Failure.CREDENTIALS:
            for pause in self._repositories.values():
                # The mirror may have been let in again everywhere.
                pause.is_on_trial |= pause.failure is Failure.CREDENTIALS

    def due(self, now: float, identity: str) -> list[tuple[Repository, Name]]:
        """Return what to ask the upstream about now, if it is time for any; it counts as asked about."""
        self._forget(now)
        chosen = []
        if self._everywhere is not None:
            if now >= self._everywhere.until:
                # One repository that fails for reasons of its own must not hide that the others are back.
                chosen = sorted(self._met, key=lambda key: (self._met[key].probed_at, key[0] in self._repositories))[:1]
                self._everywhere.until = now + _PAUSE_SECONDS
        else:
            chosen = list(self._due_repositories(now, identity))[:_MOST_AT_ONCE]
        for key in chosen:
            self._met[key].probed_at = now
            if key[0] in self._repositories:
                self._repositories[key[0]].until = now + _PAUSE_SECONDS
        return chosen

    def _due_repositories(self, now: float, identity: str) -> Iterator[tuple[Repository, Name]]:
        oldest: dict[Repository, tuple[Repository, Name]] = {}
        for key, met in self._met.items():
            if key[0] not in oldest or met.probed_at < self._met[oldest[key[0]]].probed_at:
                oldest[key[0]] = key
        for repository, pause in sorted(self._repositories.items(), key=lambda item: item[1].until):
            has_changed = pause.failure is Failure.CREDENTIALS and pause.identity != identity
            if repository in oldest and (now >= pause.until or has_changed):
                yield oldest[repository]

    def _spreads(self, failure: Failure, *, was_failing: bool) -> bool:
        if failure in _EVERYWHERE:
            return not was_failing
        if failure is Failure.CREDENTIALS or was_failing:
            return False
        others = [each for each in self._repositories.values() if not each.is_local]
        return sum(each.failure is not Failure.CREDENTIALS for each in others) >= _MANY_REPOSITORIES

    def _end_everywhere(self) -> None:
        if self._everywhere is None:
            return
        self._everywhere = None
        for pause in self._repositories.values():
            # Whether they failed for reasons of their own is seen at the next pull of each.
            pause.is_on_trial = pause.failure is not Failure.CREDENTIALS

    def _note(self, repository: Repository, name: Name, now: float) -> None:
        known = self._met.pop((repository, name), None)
        self._met[repository, name] = _Met(now, known.probed_at if known is not None else 0.0)
        while len(self._met) > _MOST_MET:
            del self._met[next(iter(self._met))]

    def _forget(self, now: float) -> None:
        """Drop what nobody pulls any more: whoever does will find out."""
        self._met = {key: met for key, met in self._met.items() if now - met.met_at < _FORGOTTEN_SECONDS}
        pulled = {repository for repository, _ in self._met}
        self._repositories = {each: pause for each, pause in self._repositories.items() if each in pulled}
        if not self._met:
            self._everywhere = None


def _seconds(error: RegistryError) -> float:
    if error.failure is Failure.TOO_MANY:
        return float(error.retry_after or _PAUSE_SECONDS)
    return _CREDENTIALS_PAUSE_SECONDS if error.failure is Failure.CREDENTIALS else _PAUSE_SECONDS
