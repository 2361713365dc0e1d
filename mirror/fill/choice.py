"""Which source a blob comes from next: the cheapest that has it, or will. It decides, and does nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from mirror.fleet import Claim, Filler, Sibling


class Choice(NamedTuple):
    """The sibling to read from, None for the upstream; `filler` is the lease it reads under, None if it has it all."""

    sibling: Sibling | None = None
    filler: Filler | None = None


def choose(claim: Claim, own: str, region: str, siblings: Sequence[Sibling]) -> Choice:
    """Return what the replica with the identity `own`, in `region`, had best read from.

    `siblings` are those that can be asked, the nearest first. Who reads for a region reads from another region, and
    everybody else in it from him, so that bytes pass between regions once.
    """
    holding = {each.identity for each in claim.holders}
    whole = [each for each in siblings if each.identity in holding]
    near = [each for each in whole if each.region == region]
    if near:
        return Choice(near[0])
    regional = _reached(claim.regional, own, siblings)
    if regional is not None:
        return Choice(regional, claim.regional)
    if whole:
        return Choice(whole[0])
    leading = _reached(claim.leading, own, siblings)
    return Choice() if leading is None else Choice(leading, claim.leading)


def suspect(claim: Claim, own: str, region: str, siblings: Collection[Sibling]) -> Filler | None:
    """Return a filler whose lease is in this replica's way, as it cannot be asked; None if there is none."""
    choice = choose(claim, own, region, tuple(siblings))
    if choice.sibling is not None and choice.sibling.region == region:
        return None
    reached = {own, *(each.identity for each in siblings)}
    in_the_way = [claim.regional] if choice.sibling is not None else [claim.regional, claim.leading]
    return next((each for each in in_the_way if each is not None and each.identity not in reached), None)


def _reached(filler: Filler | None, own: str, siblings: Sequence[Sibling]) -> Sibling | None:
    if filler is None or filler.identity == own:
        return None
    return next((each for each in siblings if each.identity == filler.identity), None)
