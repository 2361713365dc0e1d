"""Prometheus metrics: one registry a process; what several processes count adds up.

Label values come from closed sets: never a repository, tag, digest, client or path.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Registry = CollectorRegistry
_FIRST_BYTE = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ANSWER_LABELS = ("upstream", "kind", "outcome")
_FLEET = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
_FILL = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Sample(NamedTuple):
    """One series of one process, as it crosses the channel."""

    family: str
    kind: str
    help: str
    name: str
    labels: Mapping[str, str]
    value: float


class DoorMetrics(Collector):
    """What a door counts: plain numbers, made into series when somebody looks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._tallies: dict[tuple[str, str, str], _Tally] = {}
        self._refused: dict[str, int] = {}
        registry.register(self)

    def answered(self, upstream: str, kind: str, outcome: str, sent: int, first_byte: float) -> None:
        """Count one answered request; `sent` in bytes, `first_byte` in seconds. One thread."""
        key = (upstream, kind, outcome)
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = _Tally()
        tally.sent += sent
        tally.seconds += first_byte
        tally.counts[bisect_left(_FIRST_BYTE, first_byte)] += 1

    def refuse_siblings_for(self, reasons: Iterable[str]) -> None:
        """Show for each of these reasons how many requests of siblings were refused, from the first scrape on."""
        self._refused = dict.fromkeys(reasons, 0)

    def refused_sibling(self, reason: str) -> None:
        """Count a request that claims to be a sibling's, and was refused. One thread."""
        self._refused[reason] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield the series as they stand. Any thread."""
        refused = CounterMetricFamily(
            "layover_sibling_refused", "Requests refused that claim to be a sibling's.", labels=("reason",)
        )
        for reason, count in self._refused.items():
            refused.add_metric((reason,), count)
        yield refused
        requests = CounterMetricFamily("layover_requests", "Requests of clients.", labels=_ANSWER_LABELS)
        sent = CounterMetricFamily("layover_response_bytes", "Body bytes sent to clients.", labels=_ANSWER_LABELS)
        first_bytes: dict[tuple[str, str], _Tally] = {}
        for key, tally in list(self._tallies.items()):
            requests.add_metric(key, sum(tally.counts))
            sent.add_metric(key, tally.sent)
            first_bytes.setdefault(key[1:], _Tally()).add(tally)
        yield requests
        yield sent
        family = HistogramMetricFamily(
            "layover_time_to_first_byte_seconds",
            "From a request's arrival to the head of its answer.",
            labels=_ANSWER_LABELS[1:],
        )
        for labels, tally in first_bytes.items():
            bounds = map(floatToGoString, (*_FIRST_BYTE, math.inf))
            family.add_metric(labels, list(zip(bounds, accumulate(tally.counts), strict=True)), tally.seconds)
        yield family


class _Tally:
    """Answers of one kind: their body bytes, and in how many seconds how many of them began."""

    __slots__ = ("counts", "seconds", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.seconds = 0.0
        self.counts = [0] * (len(_FIRST_BYTE) + 1)

    def add(self, other: _Tally) -> None:
        """Take in what another one counted."""
        self.sent += other.sent
        self.seconds += other.seconds
        self.counts = [sum(pair) for pair in zip(self.counts, other.counts, strict=True)]


class HubMetrics:
    """What the hub counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.upstream_requests = Counter(
            "layover_upstream_requests",
            "Requests to upstreams.",
            ("upstream", "kind", "method", "status"),
            registry=registry,
        )
        self.upstream_bytes = Counter(
            "layover_upstream_bytes", "Body bytes received from upstreams.", ("upstream",), registry=registry
        )
        self.upstream_retries = Counter(
            "layover_upstream_retries", "Requests to upstreams made again.", ("upstream", "reason"), registry=registry
        )
        self.sibling_bytes = Counter(
            "layover_sibling_bytes", "Body bytes received from siblings.", ("peer_region",), registry=registry
        )
        self.upstream_up = Gauge(
            "layover_upstream_up",
            "1 while an upstream is asked, 0 while it is left alone.",
            ("upstream",),
            registry=registry,
        )
        self.upstream_quota_remaining = Gauge(
            "layover_upstream_quota_remaining",
            "Manifests that an upstream still lets the mirror fetch.",
            ("upstream",),
            registry=registry,
        )
        self.upstream_quota_limit = Gauge(
            "layover_upstream_quota_limit",
            "Manifests that an upstream lets the mirror fetch in all.",
            ("upstream",),
            registry=registry,
        )
        self.fills_active = Gauge("layover_fills_active", "Blobs on their way into the store.", registry=registry)
        self.fill_seconds = Histogram(
            "layover_fill_seconds", "From a fill's start to its verified end.", buckets=_FILL, registry=registry
        )
        self.digest_mismatches = Counter(
            "layover_digest_mismatches",
            "Blobs and manifests that were not what they claimed.",
            ("upstream",),
            registry=registry,
        )
        self.store_bytes = Gauge("layover_store_bytes", "Bytes that the store takes.", registry=registry)
        self.store_capacity = Gauge("layover_store_capacity_bytes", "The store's high mark.", registry=registry)
        self.store_objects = Gauge("layover_store_objects", "What the store holds.", ("kind",), registry=registry)
        self.fleet_up = Gauge(
            "layover_fleet_up", "1 while the fleet can be asked, 0 while the replica is alone.", registry=registry
        )
        self.fleet_replicas = Gauge(
            "layover_fleet_replicas",
            "Live replicas of the fleet, this one among them.",
            ("peer_region",),
            registry=registry,
        )
        self.fleet_seconds = Histogram(
            "layover_fleet_seconds",
            "From a question to the fleet to its answer, or to its absence.",
            ("operation",),
            buckets=_FLEET,
            registry=registry,
        )
        self.build_info = Gauge("layover_build_info", "Always 1.", ("version",), registry=registry)


def new_registry() -> CollectorRegistry:
    """Return an empty registry for one process."""
    return CollectorRegistry(auto_describe=False)


def samples(registry: CollectorRegistry) -> Iterator[Sample]:
    """Yield every series of a process."""
    for family in registry.collect():
        for each in family.samples:
            if each.name.endswith("_created"):
                continue  # the library's own series, which nobody was promised
            yield Sample(family.name, family.type, family.documentation, each.name, each.labels, each.value)


def render(registry: CollectorRegistry, others: Iterable[Iterable[Sample]] = ()) -> bytes:
    """Return the Prometheus text of a process and, added up, of other processes of the replica. Slow: use a thread."""
    values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    families: dict[str, Metric] = {}
    for group in (samples(registry), *others):
        for each in group:
            families.setdefault(each.family, Metric(each.family, each.help, each.kind))
            key = (each.name, tuple(each.labels.items()))
            if key not in values:
                families[each.family].add_sample(each.name, dict(each.labels), 0.0)
                values[key] = 0.0
            values[key] += each.value
    for family in families.values():
        family.samples = [each._replace(value=values[each.name, tuple(each.labels.items())]) for each in family.samples]
    return generate_latest(_Collected(families.values()))


class _Collected(CollectorRegistry):
    """Families that were collected already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        super().__init__()
        self._families = tuple(families)

    def collect(self) -> Iterator[Metric]:
        yield from self._families
