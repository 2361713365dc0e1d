"""WWW-Authenticate challenges (RFC 9110 §11.6.1), as tolerant as registries need."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_WORD = r"[\w!#$%&'*+.^`|~-]++"
# Nothing that was matched is tried again in another way: a line of blanks must not take minutes.
_PIECE = re.compile(
    r"[\s,]*+(?:(?P<token68>[\w\-.~+/]++=++)(?=\s*+(?:,|$))"
    rf'|(?P<key>{_WORD})\s*+=\s*+(?:"(?P<quoted>(?:[^"\\]|\\.)*+)"|(?P<bare>[^\s,]++))'
    rf"|(?P<scheme>{_WORD})(?=[\s,]|$))"
)
_MOST_PIECES = 64


class Challenge(NamedTuple):
    """One challenge: its scheme in lower case, and its parameters."""

    scheme: str
    parameters: Mapping[str, str]

    @property
    def scopes(self) -> tuple[str, ...]:
        """What a token must be good for, by the challenge's own words; nothing if it does not say."""
        return tuple(self.parameters.get("scope", "").split())

    @property
    def is_insufficient(self) -> bool:
        """Whether it says that a token is good, but not for this (RFC 6750 §3.1)."""
        return self.parameters.get("error") == "insufficient_scope"

    def without_scope(self) -> Challenge:
        """Return the same challenge, whatever it is asked for."""
        return self._replace(parameters={key: value for key, value in self.parameters.items() if key != "scope"})


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """Return every challenge in the header's values; what cannot be read is left out."""
    found: list[tuple[str, dict[str, str]]] = []
    for value in values:
        place = 0
        for _ in range(_MOST_PIECES):
            piece = _PIECE.match(value, place)
            if piece is None:
                break
            place = piece.end()
            if piece["scheme"] is not None:
                found.append((piece["scheme"].lower(), {}))
            elif found and piece["key"] is not None:
                text = piece["bare"] if piece["quoted"] is None else re.sub(r"\\(.)", r"\1", piece["quoted"])
                found[-1][1].setdefault(piece["key"].lower(), text)
    return [Challenge(scheme, parameters) for scheme, parameters in found]


def bearer(values: Iterable[str]) -> Challenge | None:
    """Return the first Bearer challenge whose realm is an address; else the first that names any."""
    named = [each for each in parse_challenges(values) if each.scheme == "bearer" and each.parameters.get("realm")]
    addressed = [each for each in named if "://" in each.parameters["realm"]]
    return next(iter(addressed + named), None)


def usable(values: Iterable[str]) -> Challenge | None:
    """Return the challenge to meet: a Bearer one, else a Basic one."""
    lines = list(values)
    basic = (each for each in parse_challenges(lines) if each.scheme == "basic")
    return bearer(lines) or next(basic, None)
