"""How siblings do, learnt from what they answered: how far each is, and whether it is left alone. It decides alone."""

from __future__ import annotations

import math
from collections.abc import Iterable

from mirror.fleet import Sibling

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
# Of two measurements a sudden long one says little: most often somebody was busy.
_WEIGHT = 0.25
# Siblings that are as near as that to one another are equally near: who has less to do goes first.
_NEAR = 0.01


class Standing:
    """One sibling's: `latency` in seconds from a request to its answer, infinite while unknown.

    It `is_silent` from when nothing came from it that was waited for until something comes.
    """

    def __init__(self) -> None:
        self.latency = math.inf
        self._failures = 0
        self._ejected_until = -math.inf
        self.is_silent = False

    def answered(self, seconds: float) -> None:
        """Note how soon it answered."""
        if seconds < self.latency:
            self.latency = seconds
        else:
            self.latency += _WEIGHT * (min(seconds, 2 * self.latency) - self.latency)

    def failed(self, now: float) -> None:
        """Leave it alone from `now` on, for longer each time; what fails while it is left alone counts once."""
        if self.is_ejected(now):
            return
        if now > self._ejected_until + _LONGEST_PAUSE:
            self._failures = 0
        self._ejected_until = now + min(math.ldexp(_FIRST_PAUSE, self._failures), _LONGEST_PAUSE)
        self._failures += 1

    def worked(self) -> None:
        """Note that it did what it was asked for."""
        self._failures = 0
        self._ejected_until = -math.inf

    def is_ejected(self, now: float) -> bool:
        """Say whether it is left alone."""
        return self.is_silent or now < self._ejected_until


class Standings:
    """Every sibling's."""

    def __init__(self, region: str) -> None:
        """Judge for a replica of `region`."""
        self._region = region
        self._known: dict[str, Standing] = {}

    def of(self, identity: str) -> Standing:
        """Return a sibling's standing."""
        return self._known.setdefault(identity, Standing())

    def keep(self, identities: Iterable[str]) -> None:
        """Forget all siblings but these."""
        kept = set(identities)
        self._known = {identity: each for identity, each in self._known.items() if identity in kept}

    def silent(self, siblings: Iterable[Sibling]) -> list[Sibling]:
        """Return those that are silent."""
        return [each for each in siblings if self.of(each.identity).is_silent]

    def order(self, siblings: Iterable[Sibling], now: float) -> list[Sibling]:
        """Return siblings by what they cost, the cheapest first, without those that are left alone."""
        return sorted((each for each in siblings if not self.of(each.identity).is_ejected(now)), key=self._cost)

    def _cost(self, sibling: Sibling) -> tuple[bool, float, int, str]:
        latency = self.of(sibling.identity).latency
        steps = latency if math.isinf(latency) else latency // _NEAR
        return (sibling.region != self._region, steps, sibling.load, sibling.identity)
