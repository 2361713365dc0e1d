"""Cache-Status, to the letter."""

from __future__ import annotations

import re

import pytest

from mirror.observe.cache_status import CacheStatus, Outcome
from mirror.oci.errors import Failure


@pytest.mark.parametrize(
    ("status", "header"),
    [
        (CacheStatus(Outcome.HIT, ttl=212, age=88), "layover; hit; ttl=212"),
        (CacheStatus(Outcome.HIT), "layover; hit"),
        (CacheStatus(Outcome.REVALIDATED, ttl=300, age=0), "layover; hit; ttl=300"),
        (CacheStatus(Outcome.MISS), "layover; fwd=miss; stored"),
        (CacheStatus(Outcome.MISS, ttl=300, age=0), "layover; fwd=miss; stored"),
        (CacheStatus(Outcome.JOINED), "layover; fwd=miss; collapsed"),
        (CacheStatus(Outcome.MISS, is_stored=False), "layover; fwd=miss; detail=unstored"),
        (CacheStatus(Outcome.JOINED, is_stored=False), "layover; fwd=miss; detail=unstored"),
        (
            CacheStatus(Outcome.STALE, ttl=-90, age=390, failure=Failure.TOO_MANY),
            "layover; hit; ttl=-90; detail=stale-429",
        ),
    ],
)
def test_reads__as_promised(status: CacheStatus, header: str) -> None:
    assert status.header() == header


@pytest.mark.parametrize("failure", Failure)
def test_names_a_promised_reason__of_every_stale_answer(failure: Failure) -> None:
    header = CacheStatus(Outcome.STALE, ttl=-1, failure=failure).header()
    promised = r"layover; hit; ttl=-1; detail=stale-(429|5xx|timeout|refused|reset|dns|tls|credentials|quota|deleted)"
    assert re.fullmatch(promised, header)
