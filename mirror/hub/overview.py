"""How the replica does, and the fleet, in one answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from importlib.metadata import version

import msgspec

from mirror.eviction.ghost import Advice
from mirror.fleet import Coordinator
from mirror.hub.pins import Pins
from mirror.observe.cache_status import Outcome
from mirror.observe.metrics import Sample
from mirror.store import Store

_FROM_STORE = frozenset({Outcome.HIT, Outcome.REVALIDATED, Outcome.STALE})
_FETCHED = frozenset({Outcome.MISS, Outcome.JOINED})
_CONTENT = frozenset({"manifest", "blob"})


class Member(msgspec.Struct, frozen=True):
    """A live replica; `room` is how many bytes its store may still take, None while that is being counted."""

    identity: str
    label: str
    region: str
    url: str
    version: str
    room: int | None
    load: int
    state: str
    is_this: bool = False


class Fleet(msgspec.Struct, frozen=True):
    """The replicas, this one first; `state` says how this one stands to the others."""

    state: str
    is_up: bool
    replicas: list[Member]


class UpstreamHealth(msgspec.Struct, frozen=True):
    """How an upstream does that was asked: the quota is in manifests, None where nobody told it."""

    name: str
    is_up: bool
    requests: int
    bytes: int
    quota_left: int | None
    quota: int | None


class Hits(msgspec.Struct, frozen=True):
    """Requests for manifests and blobs and the bytes sent for them, since the replica began; of none no ratio."""

    requests: int
    hits: int
    ratio: float | None
    bytes: int
    bytes_from_store: int
    byte_ratio: float | None


class StoreUse(msgspec.Struct, frozen=True):
    """What the store takes of what it may; `is_counted`: the figures are whole."""

    path: str
    bytes: int
    capacity: int
    manifests: int
    blobs: int
    pins: int
    is_counted: bool


class Status(msgspec.Struct, frozen=True):
    """All of it; `advice` is what other sizes of the store would have been worth."""

    version: str
    fleet: Fleet
    upstreams: list[UpstreamHealth]
    hits: Hits
    store: StoreUse
    advice: Advice


class Overview:
    """Puts together what the parts of the hub know."""

    def __init__(
        self,
        store: Store,
        coordinator: Coordinator,
        pins: Pins,
        label: str,
        samples: Callable[[], Iterable[Sample]],
        advice: Callable[[], Advice],
    ) -> None:
        """Call this replica `label`; `samples` are what all its processes counted, `advice` is about its store."""
        self._store = store
        self._coordinator = coordinator
        self._pins = pins
        self._label = label
        self._samples = samples
        self._advice = advice

    def fleet(self) -> Fleet:
        """Return the replicas that are known now. No I/O."""
        coordinator, room = self._coordinator, self._store.room
        own = Member(
            identity=coordinator.identity,
            label=self._label,
            region=coordinator.region,
            url="",
            version=version("layover"),
            room=max(0, room.capacity - room.used) if room.is_counted else None,
            load=0,
            state=coordinator.state,
            is_this=True,
        )
        others = [
            Member(each.identity, each.label, each.region, each.url, each.version, each.room, each.load, "live")
            for each in coordinator.siblings.values()
        ]
        others.sort(key=lambda each: (each.region != own.region, each.region, each.label, each.identity))
        return Fleet(coordinator.state, coordinator.is_up, [own, *others])

    def status(self) -> Status:
        """Return everything. Slow: use a thread."""
        samples = list(self._samples())
        return Status(
            version("layover"), self.fleet(), _upstreams(samples), _hits(samples), self._use(), self._advice()
        )

    def _use(self) -> StoreUse:
        store, room = self._store, self._store.room
        return StoreUse(
            str(store.path.absolute()),
            room.used,
            room.capacity,
            store.objects["manifest"],
            store.objects["blob"],
            len(self._pins.all),
            room.is_counted,
        )


def _upstreams(samples: Iterable[Sample]) -> list[UpstreamHealth]:
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for each in samples:
        if each.name.startswith("layover_upstream_") and each.labels.get("upstream"):
            found[each.labels["upstream"]][each.name.removeprefix("layover_upstream_")] += each.value
    return [
        UpstreamHealth(
            name,
            is_up=bool(facts.get("up", 1.0)),
            requests=int(facts["requests_total"]),
            bytes=int(facts["bytes_total"]),
            quota_left=int(facts["quota_remaining"]) if "quota_remaining" in facts else None,
            quota=int(facts["quota_limit"]) if "quota_limit" in facts else None,
        )
        for name, facts in sorted(found.items())
    ]


def _hits(samples: Iterable[Sample]) -> Hits:
    requests: dict[str, int] = defaultdict(int)
    sent: dict[str, int] = defaultdict(int)
    for each in samples:
        if each.labels.get("kind") in _CONTENT:
            tally = {"layover_requests_total": requests, "layover_response_bytes_total": sent}.get(each.name)
            if tally is not None:
                tally[each.labels["outcome"]] += int(each.value)
    hits, all_hits = _of(requests, _FROM_STORE), _of(requests, _FROM_STORE | _FETCHED)
    kept, all_bytes = _of(sent, _FROM_STORE), _of(sent, _FROM_STORE | _FETCHED)
    return Hits(
        all_hits, hits, hits / all_hits if all_hits else None, all_bytes, kept, kept / all_bytes if all_bytes else None
    )


def _of(tally: dict[str, int], outcomes: Iterable[Outcome]) -> int:
    return sum(tally.get(outcome, 0) for outcome in outcomes)
