"""Quotas and rates: what is free, what is passed on, and who has how much."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from typing import Literal

import pytest

from tests.conformance.wire import assert_error
from tests.profiles.place import MOVING, USER, Place
from tests.upstream import Failure


class TestQuota:
    def test_is_told__with_its_retry_after(self, place: Place) -> None:
        place.upstream.dials.manifest_quota, place.upstream.dials.limit_retry_after = 0, "60"
        place.push()
        answer = place.ask("manifests/1")
        assert_error(answer, 429, "TOOMANYREQUESTS")
        assert 50 <= int(answer.headers["Retry-After"]) <= 60

    @pytest.mark.parametrize("shape", ["json", "plain", "html", "empty"])
    def test_is_understood__in_every_shape(
        self, shape: Literal["json", "plain", "html", "empty"], place: Place
    ) -> None:
        place.upstream.dials.manifest_quota, place.upstream.dials.limit_body = 0, shape
        place.push()
        answer = place.ask("manifests/1")
        assert_error(answer, 429, "TOOMANYREQUESTS")
        assert int(answer.headers["Retry-After"]) > 0

    def test_is_told__by_a_date(self, place: Place) -> None:
        place.upstream.dials.manifest_quota = 0
        place.upstream.dials.limit_retry_after = formatdate(time.time() + 600, usegmt=True)
        place.push()
        assert 500 <= int(place.ask("manifests/1").headers["Retry-After"]) <= 601

    def test_is_the_caller_s_own(self, place: Place) -> None:
        dials = place.upstream.dials
        dials.auth, dials.manifest_quota, dials.user_quotas = "bearer", 0, {USER: 100}
        image = place.push()
        assert_error(place.ask("manifests/1"), 429, "TOOMANYREQUESTS")
        place.pull(image, "user")
        assert dials.user_quotas[USER] < 100

    def test_costs_one_get__for_a_tag_that_did_not_move(self, place: Place) -> None:
        dials = place.upstream.dials
        dials.manifest_quota = dials.manifest_quota_limit = 100
        image = place.push(tag=MOVING)
        for _ in range(10):
            place.fetch(f"manifests/{MOVING}", image.index.digest)
        assert dials.manifest_quota == 99

    def test_does_not_count_against_what_is_held(self, place: Place) -> None:
        image = place.push(tag=MOVING)
        place.pull(image)
        place.upstream.dials.failures.append(Failure(429, body="plain", message="slow down", retry_after="600"))
        for _ in range(5):
            place.pull(image)


class TestRate:
    def test_is_kept__by_waiting_where_that_is_short(self, place: Place) -> None:
        dials = place.upstream.dials
        dials.manifest_rate, dials.manifest_burst, dials.limit_retry_after = 1.0, 1, "1"
        place.pull(place.push())

    def test_is_told__where_it_is_long(self, place: Place) -> None:
        dials = place.upstream.dials
        dials.manifest_rate, dials.manifest_burst, dials.limit_body = 0.001, 1, "html"
        image = place.push()
        place.fetch("manifests/1", image.index.digest)
        assert_error(place.ask(f"manifests/{image.manifests[0].digest}"), 429, "TOOMANYREQUESTS")


class TestOutages:
    @pytest.mark.parametrize("status", [502, 503, 504])
    @pytest.mark.parametrize("kind", ["manifest", "blob", "token"])
    def test_of_a_moment__are_not_noticed(
        self, status: int, kind: Literal["manifest", "blob", "token"], place: Place
    ) -> None:
        place.upstream.dials.auth = "bearer"
        place.upstream.dials.failures.append(Failure(status, kind=kind, times=1, body="html"))
        place.pull(place.push())

    def test_that_swallow_a_head__make_a_tag_stale_and_no_longer(self, place: Place) -> None:
        first = place.push(tag=MOVING)
        place.fetch(f"manifests/{MOVING}", first.index.digest)
        second = place.push(tag=MOVING, seed=1)
        place.upstream.dials.black_hole, place.upstream.dials.black_hole_times = {"manifest"}, 1
        answer = place.fetch(f"manifests/{MOVING}", first.index.digest)
        assert "stale-timeout" in answer.headers["Cache-Status"]
        deadline = time.monotonic() + 30
        while place.ask(f"manifests/{MOVING}").headers["Docker-Content-Digest"] != second.index.digest:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def test_of_head__leave_tags_as_they_were_held(self, place: Place) -> None:
        image = place.push(tag=MOVING)
        place.fetch(f"manifests/{MOVING}", image.index.digest)
        place.upstream.dials.failures.append(Failure(403, kind="manifest", method="HEAD", body="html", times=1))
        for _ in range(3):
            place.fetch(f"manifests/{MOVING}", image.index.digest)


@pytest.mark.parametrize("shape", ["json", "plain", "html", "code", "empty"])
@pytest.mark.parametrize("code", [None, "TAG_EXPIRED", "NOT_FOUND", "NAME_UNKNOWN"])
def test_not_found__is_understood_in_every_shape(
    shape: Literal["json", "plain", "html", "code", "empty"], code: str | None, place: Place
) -> None:
    place.upstream.dials.not_found_body, place.upstream.dials.not_found_code = shape, code
    place.push()
    for path in ("manifests/none", "tags/list"):
        repository = place.repository if path.startswith("manifests") else "team/none"
        answer = place.ask(path, repository=repository)
        assert_error(answer, 404, "MANIFEST_UNKNOWN", "NAME_UNKNOWN")
        assert json.loads(answer.body)["errors"]
