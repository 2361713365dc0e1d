"""Which source comes next, as the fleet stands."""

from __future__ import annotations

import pytest

from mirror.fill.choice import Choice, choose, suspect
from mirror.fleet import Claim, Filler, Sibling

OWN = "own"
NEAR, NEARER = (Sibling(name, name, "here", f"http://{name}", "1") for name in ("near", "nearer"))
FAR, FARTHER = (Sibling(name, name, "there", f"http://{name}", "1") for name in ("far", "farther"))
ALL = (NEARER, NEAR, FAR, FARTHER)
MINE = Filler(OWN, 1)


def _filler(sibling: Sibling) -> Filler:
    return Filler(sibling.identity, 7)


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (Claim(), Choice()),
        (Claim((), MINE, MINE), Choice()),
        (Claim((FAR, NEAR), MINE, MINE), Choice(NEAR)),
        (Claim((NEAR, NEARER), _filler(NEAR)), Choice(NEARER)),
        (Claim((FAR,), _filler(NEAR)), Choice(NEAR, _filler(NEAR))),
        (Claim((FARTHER, FAR), MINE), Choice(FAR)),
        (Claim((), MINE, _filler(FAR)), Choice(FAR, _filler(FAR))),
        (Claim((), _filler(NEAR), None), Choice(NEAR, _filler(NEAR))),
        (Claim((FARTHER,), MINE, _filler(FAR)), Choice(FARTHER)),
    ],
    ids=[
        "fleet away",
        "leads",
        "holder in the region",
        "holder in the region beside its filler",
        "filler of the region before a holder elsewhere",
        "the nearest of those elsewhere",
        "filler elsewhere",
        "filler of the region",
        "holder elsewhere before a filler elsewhere",
    ],
)
def test_choose__the_cheapest(claim: Claim, expected: Choice) -> None:
    assert choose(claim, OWN, "here", ALL) == expected


@pytest.mark.parametrize(
    ("claim", "reached", "expected"),
    [
        (Claim((NEAR, FAR), MINE), (FAR,), Choice(FAR)),
        (Claim((FAR,), _filler(NEAR)), (FAR,), Choice(FAR)),
        (Claim((), _filler(NEAR), None), (), Choice()),
        (Claim((FAR,), MINE, _filler(FARTHER)), (FARTHER,), Choice(FARTHER, _filler(FARTHER))),
    ],
)
def test_choose__the_cheapest_cannot_be_asked(claim: Claim, reached: tuple[Sibling, ...], expected: Choice) -> None:
    assert choose(claim, OWN, "here", reached) == expected


@pytest.mark.parametrize(
    ("claim", "reached", "expected"),
    [
        (Claim(), (), None),
        (Claim((), MINE, MINE), (), None),
        (Claim((), _filler(NEAR)), ALL, None),
        (Claim((), _filler(NEAR)), (FAR,), _filler(NEAR)),
        (Claim((), MINE, _filler(FAR)), ALL, None),
        (Claim((), MINE, _filler(FAR)), (NEAR,), _filler(FAR)),
        (Claim((FARTHER,), MINE, _filler(FAR)), (FARTHER,), None),
        (Claim((FARTHER,), _filler(NEAR)), (FARTHER,), _filler(NEAR)),
        (Claim((NEARER,), _filler(NEAR)), (NEARER,), None),
    ],
    ids=[
        "fleet away",
        "nobody is in the way",
        "the filler is well",
        "filler of the region is gone",
        "the leading filler is well",
        "the leading filler is gone",
        "a holder elsewhere makes up for the leading filler",
        "a holder elsewhere does not make up for the filler of the region",
        "a holder in the region does",
    ],
)
def test_suspect__whose_lease_is_in_the_way(
    claim: Claim, reached: tuple[Sibling, ...], expected: Filler | None
) -> None:
    assert suspect(claim, OWN, "here", reached) == expected
