"""Quotas: what upstreams tell of their limits, what is not asked for then, and what is exported."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from mirror import config
from mirror.observe.metrics import HubMetrics, new_registry
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository, Tag
from mirror.source.upstream import Level, Quotas, failures
from mirror.source.upstream.ask import Ask
from tests import upstream as bed
from tests.source.conftest import APP, HOST, Source, asking
from tests.upstream import Upstream

UPSTREAM = config.Upstream(HOST, HOST, f"https://{HOST}")
TAG = Tag("1")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, to be changed."""
    now = [1000.0]
    monkeypatch.setattr("mirror.source.upstream.quota.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def registry() -> CollectorRegistry:
    return new_registry()


@pytest.fixture
def quotas(clock: list[float], registry: CollectorRegistry) -> Quotas:
    return Quotas(HubMetrics(registry))


def ask(method: str = "GET", kind: str = "manifest") -> Ask:
    return Ask(UPSTREAM, Repository(HOST, "app"), kind, method, "manifests/1", ErrorCode.MANIFEST_UNKNOWN)


def made(quotas: Quotas, remaining: str | None, method: str = "GET", limit: str = "100;w=21600") -> None:
    """Make a request as nobody, whose answer tells what is left."""
    allowance = quotas.admit(ask(method), "")
    headers = {} if remaining is None else {"RateLimit-Limit": limit, "RateLimit-Remaining": remaining}
    quotas.learn(allowance, ask(method), headers)
    quotas.leave(allowance)


def refused(wait: str | None = None) -> failures.UpstreamError:
    headers = {} if wait is None else {"Retry-After": wait}
    return failures.refusal(UPSTREAM, 429, headers, b"", ErrorCode.MANIFEST_UNKNOWN, "registry.example:443")


@contextmanager
def not_allowed(seconds: int) -> Iterator[None]:
    with pytest.raises(RegistryError) as held_back:
        yield
    assert (held_back.value.code, held_back.value.failure) == (ErrorCode.TOOMANYREQUESTS, Failure.TOO_MANY)
    assert held_back.value.retry_after == seconds


class TestLearning:
    def test_begins__with_nothing(self, quotas: Quotas) -> None:
        assert quotas.level(UPSTREAM) is Level.PLENTY
        assert (quotas.remaining(UPSTREAM), quotas.limit(UPSTREAM)) == (None, None)
        assert quotas.heads_are_free(UPSTREAM)

    @pytest.mark.parametrize(
        ("remaining", "level"),
        [(100, Level.PLENTY), (20, Level.PLENTY), (19, Level.LOW), (5, Level.LOW), (4, Level.CRITICAL)],
    )
    def test_tells__how_much_is_left(self, remaining: int, level: Level, quotas: Quotas) -> None:
        made(quotas, f"{remaining};w=21600")
        assert (quotas.remaining(UPSTREAM), quotas.limit(UPSTREAM)) == (remaining, 100)
        assert quotas.level(UPSTREAM) is level

    @pytest.mark.parametrize(
        ("limit", "remaining"),
        [
            ("", "5"),
            ("100", ""),
            ("0", "0"),
            ("many", "few"),
            ("100", "-1"),
            ("1e3", "5"),
            ("9" * 50, "1"),
            ("\u0661\u0660", "1"),
        ],
    )
    def test_leaves_out__what_makes_no_sense(self, limit: str, remaining: str, quotas: Quotas) -> None:
        made(quotas, remaining, limit=limit)
        assert quotas.level(UPSTREAM) is Level.PLENTY
        assert quotas.remaining(UPSTREAM) is None

    @pytest.mark.parametrize(
        ("limit", "remaining", "window"),
        [
            ("100;w=21600", "3;w=21600", 21600),
            ("100 ; w=50", "3", 50),
            ("100, 100;w=50", "3", 50),
            ("100", "3", 60),
        ],
    )
    def test_is_forgotten__after_the_window(
        self, limit: str, remaining: str, window: int, quotas: Quotas, clock: list[float], registry: CollectorRegistry
    ) -> None:
        made(quotas, remaining, limit=limit)
        clock[0] += window - 1
        assert quotas.level(UPSTREAM) is Level.CRITICAL
        assert registry.get_sample_value("layover_upstream_quota_remaining", {"upstream": HOST}) == 3
        clock[0] += 1
        assert (quotas.level(UPSTREAM), quotas.remaining(UPSTREAM)) == (Level.PLENTY, None)
        assert registry.get_sample_value("layover_upstream_quota_remaining", {"upstream": HOST}) is None

    def test_is_of_one_caller__and_not_of_another(self, quotas: Quotas) -> None:
        made(quotas, "1")
        quotas.leave(quotas.admit(ask(), "somebody"))
        assert quotas.level(UPSTREAM) is Level.PLENTY
        quotas.leave(quotas.admit(ask(), ""))
        assert quotas.level(UPSTREAM) is Level.CRITICAL

    def test_counts__what_is_under_way(self, quotas: Quotas) -> None:
        made(quotas, "21")
        under_way = [quotas.admit(ask(), "") for _ in range(2)]
        assert (quotas.remaining(UPSTREAM), quotas.level(UPSTREAM)) == (19, Level.LOW)
        for each in under_way:
            quotas.leave(each)
        assert quotas.remaining(UPSTREAM) == 21

    def test_believes_the_lower_one__of_answers_that_overtook_each_other(
        self, quotas: Quotas, clock: list[float]
    ) -> None:
        made(quotas, "50")
        clock[0] += 1
        late, early = quotas.admit(ask(), ""), quotas.admit(ask(), "")
        for allowance, remaining in ((early, "48"), (late, "49")):
            clock[0] += 1
            quotas.learn(allowance, ask(), {"RateLimit-Limit": "100", "RateLimit-Remaining": remaining})
            quotas.leave(allowance)
        assert quotas.remaining(UPSTREAM) == 48
        made(quotas, "90")
        assert quotas.remaining(UPSTREAM) == 90

    def test_finds_out__that_heads_cost(self, quotas: Quotas, clock: list[float]) -> None:
        for remaining in (50, 49, 48):
            made(quotas, str(remaining), "HEAD")
            clock[0] += 1
        assert quotas.heads_are_free(UPSTREAM)
        made(quotas, "47", "HEAD")
        assert not quotas.heads_are_free(UPSTREAM)
        made(quotas, "47", "HEAD")
        assert quotas.heads_are_free(UPSTREAM)

    def test_does_not_blame_heads__for_what_gets_cost(self, quotas: Quotas, clock: list[float]) -> None:
        for remaining in range(50, 30, -2):
            made(quotas, str(remaining), "HEAD")
            getting = quotas.admit(ask(), "")
            made(quotas, str(remaining - 1), "HEAD")
            quotas.leave(getting)
            clock[0] += 1
        assert quotas.heads_are_free(UPSTREAM)


class TestMarks:
    def test_are_logged_once__as_they_are_crossed(self, quotas: Quotas) -> None:
        with capture_logs() as logs:
            for remaining in (*range(30, -1, -1), 3, 6, 21, 19, 24, 25, 30):
                made(quotas, None)
                quotas.learn(
                    quotas.admit(ask("HEAD"), ""),
                    ask("HEAD"),
                    {"RateLimit-Limit": "100", "RateLimit-Remaining": str(remaining)},
                )
        assert [(each["log_level"], each.get("mark"), each["remaining"]) for each in logs] == [
            ("warning", "20%", 19),
            ("warning", "5%", 4),
            ("info", None, 25),
        ]


class TestPauses:
    def test_last__as_long_as_is_asked_for(self, quotas: Quotas, clock: list[float]) -> None:
        quotas.limited(ask(), "", refused("300"))
        clock[0] += 100.5
        with not_allowed(200):
            quotas.admit(ask(), "")
        clock[0] += 199.5
        quotas.admit(ask(), "")

    def test_are_for_requests_of_one_kind__by_one_caller(self, quotas: Quotas) -> None:
        quotas.limited(ask(), "", refused("300"))
        for other in (ask("HEAD"), ask("GET", "blob"), ask("GET", "tags")):
            quotas.admit(other, "")
        quotas.admit(ask(), "somebody")
        with not_allowed(300):
            quotas.admit(ask()._replace(is_probe=True), "")

    def test_last_a_few_seconds__where_nothing_is_said(self, quotas: Quotas, clock: list[float]) -> None:
        for _ in range(3):
            quotas.limited(ask(), "", refused())
            clock[0] += failures.LIMITED_SECONDS - 1
            with not_allowed(1):
                quotas.admit(ask(), "")
            clock[0] += 1
            quotas.admit(ask(), "")


class TestUsedUp:
    def test_asks_for_no_more__but_for_one_a_minute(self, quotas: Quotas, clock: list[float]) -> None:
        made(quotas, "1")
        made(quotas, "0")
        quotas.leave(quotas.admit(ask(), ""))
        for _ in range(3):
            with not_allowed(3600):
                quotas.admit(ask(), "")
        quotas.admit(ask("HEAD"), "")
        clock[0] += 60
        quotas.leave(quotas.admit(ask(), ""))
        with not_allowed(3600):
            quotas.admit(ask(), "")
        clock[0] += 21600 - 60
        for _ in range(3):
            quotas.leave(quotas.admit(ask(), ""))

    def test_lets_no_more_go_out__than_are_left(self, quotas: Quotas) -> None:
        made(quotas, "3")
        quotas._account(ask(), "").probed_at = 1000.0
        for _ in range(3):
            quotas.admit(ask(), "")
        with not_allowed(failures.RETRY_AFTER):
            quotas.admit(ask(), "")


class TestAgainstARegistry:
    async def test_is_never_exceeded__by_many_at_once(self, upstream: Upstream) -> None:
        digests = [
            Digest(upstream.push_manifest(APP.name, "sha256:", b'{"schemaVersion": 2, "n": %d}' % n, "x/y"))
            for n in range(40)
        ]
        upstream.dials.manifest_quota, upstream.dials.manifest_quota_limit = 20, 20
        async with asking(upstream.url) as source:
            await source.manifests.fetch(source.upstream, APP, digests[0])
            results = await asyncio.gather(
                *(source.manifests.fetch(source.upstream, APP, each) for each in digests[1:]), return_exceptions=True
            )
            assert source.client.quotas.level(source.upstream) is Level.CRITICAL
            statuses = [result.status for result in results if isinstance(result, RegistryError)]
            assert len(statuses) == 20
            assert set(statuses) == {429}
            assert source.counted("layover_upstream_requests_total", kind="manifest", method="GET", status="200") == 20
            # One more goes out, to see if the account has more by now.
            assert upstream.counters.requests("GET", "manifest") <= 21
            assert source.counted("layover_upstream_quota_limit") == 20

    async def test_spares__what_is_limited_alone(self, upstream: Upstream, source: Source) -> None:
        image = upstream.push_image(APP.name, TAG, layers=(1_000,))
        blob = Digest(upstream.push_random_blob(APP.name, 10))
        upstream.dials.manifest_quota, upstream.dials.limit_retry_after = 0, "77"
        for _ in range(3):
            with pytest.raises(RegistryError) as refused:
                await source.manifests.fetch(source.upstream, APP, TAG)
            assert (refused.value.status, refused.value.retry_after) == (429, 77)
        assert upstream.counters.requests("GET", "manifest") == 1
        assert (await source.manifests.head(source.upstream, APP, TAG)).digest == image.index.digest
        assert await source.blobs.size(APP, blob) == 10

    async def test_is_not_asked_again__when_it_is_used_up(self, upstream: Upstream, source: Source) -> None:
        upstream.push_image(APP.name, TAG, layers=(1_000,))
        upstream.dials.manifest_quota = 0
        with pytest.raises(RegistryError) as refused:
            await source.manifests.fetch(source.upstream, APP, TAG)
        assert (refused.value.status, refused.value.retry_after) == (429, failures.LIMITED_SECONDS)
        assert upstream.counters.requests("GET", "manifest") == 1

    async def test_is_over__when_the_pause_is(self, upstream: Upstream, source: Source) -> None:
        upstream.push_image(APP.name, TAG, layers=(1_000,))
        upstream.dials.failures.append(bed.Failure(429, kind="manifest", times=3, retry_after="1"))
        with pytest.raises(RegistryError):
            await source.manifests.fetch(source.upstream, APP, TAG)
        for _ in range(100):
            try:
                await source.manifests.fetch(source.upstream, APP, TAG)
                break
            except RegistryError as error:
                assert error.status == 429  # noqa: PT017 - it may be over at once
                await asyncio.sleep(0.05)
        else:
            pytest.fail("the pause never ended")
