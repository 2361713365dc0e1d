"""What registries answered to cold requests, so that not every request has to be cold first."""

from __future__ import annotations

from enum import Enum, auto

from mirror.source.upstream.ask import Ask
from mirror.source.upstream.challenge import Challenge
from mirror.source.upstream.expiring import Expiring

_SECONDS = 3600.0
_NEW_SECONDS = 5.0
_MOST = 4096
_PULL = "pull"
_WRITES = frozenset({"push", "delete", "*"})


class Objection(Enum):
    """What a registry has against a token: that it is no good, opens other repositories, or allows other actions."""

    TOKEN = auto()
    REPOSITORY = auto()
    ACTIONS = auto()


class Challenges:
    """The challenges of registries, each taken to hold for the namespace that it was met in.

    Artifactory has a realm for each namespace, and nothing says that other registries do not.
    """

    def __init__(self) -> None:
        self._known: Expiring[tuple[str, str], Challenge] = Expiring(_SECONDS, _MOST)
        self._new: Expiring[tuple[str, str], None] = Expiring(_NEW_SECONDS, _MOST)
        self._actions: Expiring[tuple[str, str], str] = Expiring(_SECONDS, _MOST)

    def get(self, ask: Ask) -> Challenge | None:
        """Return the challenge that a request would meet if it came cold, as far as is known."""
        return self._known.get(_repository(ask)) or self._known.get(_namespace(ask))

    def is_new(self, ask: Ask) -> bool:
        """Say whether a request like this was cold just now: there is no use in another."""
        return _repository(ask) in self._new

    def learn(self, ask: Ask, challenge: Challenge) -> None:
        """Remember the challenge to a cold request."""
        self.forget(ask)
        self._new.put(_repository(ask), None)
        own = _own(ask, challenge)
        if own:
            self._actions.put((ask.endpoint, ask.kind), own)
        if own or not challenge.scopes:
            self._known.put(_namespace(ask), challenge.without_scope())
        else:
            # What an opaque scope would be elsewhere cannot be told.
            self._known.put(_repository(ask), challenge)

    def forget(self, ask: Ask) -> None:
        """Forget a challenge that proved wrong."""
        self._known.drop(_repository(ask))
        self._known.drop(_namespace(ask))

    def actions(self, ask: Ask) -> str:
        """Return what a token for a request must allow: a pull, or what this registry wants for such requests."""
        return self._actions.get((ask.endpoint, ask.kind)) or _PULL

    def scopes(self, ask: Ask, challenge: Challenge) -> tuple[str, ...]:
        """Return what to ask a token for: the repository alone, or an opaque scope to the letter."""
        own = _own(ask, challenge)
        if challenge.scopes and not own:
            return challenge.scopes
        return (f"repository:{ask.repository.name}:{own or self.actions(ask)}",)

    def objection(self, ask: Ask, refused: Challenge | None) -> Objection:
        """Return what a registry has against a token, by the challenge that came with its 401."""
        own = "" if refused is None or not refused.is_insufficient else _own(ask, refused)
        if not own:
            return Objection.TOKEN
        return Objection.REPOSITORY if own == self.actions(ask) else Objection.ACTIONS


def _repository(ask: Ask) -> tuple[str, str]:
    return ask.endpoint, ask.repository.name


def _namespace(ask: Ask) -> tuple[str, str]:
    return ask.endpoint, ask.repository.name.partition("/")[0] + "/"


def _own(ask: Ask, challenge: Challenge) -> str:
    """Return the actions that a challenge names for the repository itself, but those that change it; "" if none."""
    prefix = f"repository:{ask.repository.name}:"
    for scope in challenge.scopes:
        if scope.startswith(prefix):
            named = [each for each in scope.removeprefix(prefix).split(",") if each not in _WRITES]
            return _PULL if _PULL in named or not named else ",".join(named)
    return ""
