"""Metrics: the promised names and labels, and sums over the processes of a replica."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from mirror.observe.cache_status import Outcome
from mirror.observe.metrics import DoorMetrics, HubMetrics, Sample, new_registry, render, samples
from mirror.oci.errors import Failure

PROMISED = {
    "layover_build_info": {"version"},
    "layover_requests_total": {"upstream", "kind", "outcome"},
    "layover_response_bytes_total": {"upstream", "kind", "outcome"},
    "layover_time_to_first_byte_seconds": {"kind", "outcome"},
    "layover_upstream_requests_total": {"upstream", "kind", "method", "status"},
    "layover_upstream_bytes_total": {"upstream"},
    "layover_upstream_retries_total": {"upstream", "reason"},
    "layover_fills_active": set(),
    "layover_fill_seconds": set(),
    "layover_digest_mismatches_total": {"upstream"},
    "layover_store_bytes": set(),
    "layover_store_capacity_bytes": set(),
    "layover_store_objects": {"kind"},
    "layover_fleet_up": set(),
    "layover_fleet_replicas": {"peer_region"},
    "layover_fleet_seconds": {"operation"},
    "layover_evictions_total": {"reason"},
    "layover_evicted_bytes_total": {"reason"},
}


def door(requests: int, sent: int = 10, first_byte: float = 0.02) -> CollectorRegistry:
    """Return what a door counted that answered so many requests."""
    registry = new_registry()
    metrics = DoorMetrics(registry)
    for _ in range(requests):
        metrics.answered("docker.io", "blob", Outcome.HIT, sent, first_byte)
    return registry


def hub() -> CollectorRegistry:
    """Return what a hub counts, every series of it once."""
    registry = new_registry()
    metrics = HubMetrics(registry)
    metrics.build_info.labels("1.0").set(1)
    metrics.upstream_requests.labels("docker.io", "blob", "GET", "200").inc()
    metrics.upstream_bytes.labels("docker.io").inc(7)
    metrics.upstream_retries.labels("docker.io", Failure.SERVER).inc()
    metrics.digest_mismatches.labels("docker.io").inc()
    metrics.store_objects.labels("blob").set(3)
    metrics.evictions.labels("pressure").inc()
    metrics.evicted_bytes.labels("pressure").inc(9)
    metrics.store_bytes.set(2**50)
    metrics.fill_seconds.observe(2)
    metrics.fleet_replicas.labels("eu").set(3)
    metrics.fleet_seconds.labels("beat").observe(0.01)
    return registry


def parsed(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every series of a Prometheus text by name and labels; one that is there twice is an error."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(text.decode()):
        for each in family.samples:
            key = (each.name, tuple(sorted(each.labels.items())))
            assert key not in found, key
            found[key] = each.value
    return found


def value(text: bytes, name: str, **labels: str) -> float:
    return parsed(text)[name, tuple(sorted(labels.items()))]


def reported(registry: CollectorRegistry) -> list[Sample]:
    """Return a process's series as they come out of the channel."""
    packed = msgspec.msgpack.encode(list(samples(registry)))
    return msgspec.msgpack.decode(packed, type=list[Sample])


def base_name(name: str) -> str:
    for suffix in ("_bucket", "_count", "_sum"):
        name = name.removesuffix(suffix)
    return name


class TestNames:
    @pytest.fixture
    def text(self) -> bytes:
        return render(hub(), [reported(door(1))])

    def test_are_all_there(self, text: bytes) -> None:
        assert {base_name(name) for name, _ in parsed(text)} >= PROMISED.keys()

    def test_are_the_promised_ones__with_their_labels(self, text: bytes) -> None:
        for name, labels in parsed(text):
            assert base_name(name) in PROMISED, name
            assert {key for key, _ in labels} - {"le"} == PROMISED[base_name(name)]

    def test_are_explained__once(self, text: bytes) -> None:
        families = list(text_string_to_metric_families(text.decode()))
        assert len({family.name for family in families}) == len(families)
        assert all(family.documentation for family in families)


class TestSums:
    LABELS = (("kind", "blob"), ("outcome", "hit"), ("upstream", "docker.io"))

    @pytest.mark.parametrize("doors", [[], [3], [3, 4, 5]], ids=["none", "one", "several"])
    def test_add_up__over_processes(self, doors: list[int]) -> None:
        text = render(door(2), [reported(door(each)) for each in doors])
        total = 2 + sum(doors)
        assert parsed(text)["layover_requests_total", self.LABELS] == total
        assert parsed(text)["layover_response_bytes_total", self.LABELS] == 10 * total
        name = "layover_time_to_first_byte_seconds"
        assert value(text, f"{name}_count", kind="blob", outcome="hit") == total
        assert value(text, f"{name}_bucket", kind="blob", outcome="hit", le="+Inf") == total
        assert value(text, f"{name}_bucket", kind="blob", outcome="hit", le="0.01") == 0
        assert value(text, f"{name}_sum", kind="blob", outcome="hit") == pytest.approx(0.02 * total)

    def test_hold__what_only_one_process_counted(self) -> None:
        text = render(hub(), [reported(door(1))])
        assert value(text, "layover_upstream_bytes_total", upstream="docker.io") == 7
        assert value(text, "layover_store_bytes") == 2**50
        assert parsed(text)["layover_requests_total", self.LABELS] == 1

    def test_are_the_same__rendered_again(self) -> None:
        others = [reported(door(3))]
        registry = hub()
        assert render(registry, others) == render(registry, others)

    def test_keep_the_text__of_odd_label_values(self) -> None:
        registry = new_registry()
        odd = 'a"b\\c\nd*'
        DoorMetrics(registry).answered(odd, "blob", Outcome.MISS, 1, 0.1)
        labels = {"upstream": odd, "kind": "blob", "outcome": "miss"}
        assert value(render(registry), "layover_requests_total", **labels) == 1


@pytest.mark.parametrize(("first_byte", "bucket"), [(0.0004, "0.001"), (0.3, "0.5"), (40, "+Inf")])
def test_sorts_answers__by_their_first_byte(first_byte: float, bucket: str) -> None:
    text = render(door(1, first_byte=first_byte))
    name = "layover_time_to_first_byte_seconds_bucket"
    found: Iterable[tuple[str, float]] = (
        (dict(labels)["le"], counted) for (each, labels), counted in parsed(text).items() if each == name
    )
    assert min((le for le, counted in found if counted), key=float) == bucket
