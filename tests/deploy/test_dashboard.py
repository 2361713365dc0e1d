from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirror.observe.metrics import DoorMetrics, HubMetrics, new_registry
from tests.deploy.prometheus import Prometheus
from tests.replica import Replica
from tests.upstream import Upstream

DASHBOARD = Path(__file__).parents[2] / "grafana" / "overview.json"
VARIABLES = {"$instance": ".*", "$__rate_interval": "1m", "$__range": "1h"}
DATA_SECONDS = 60.0


def panels() -> list[dict[str, Any]]:
    """Every panel but the rows."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Every panel's title with each of its queries, the variables filled in."""
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield f"{panel['title']} {target['refId']}", expression


def get(url: str) -> bytes:
    """The body of an answer."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        body: bytes = answer.read()
        return body


def pull(replica: Replica, tag: str) -> None:
    """Pull the first platform of `library/app` as a client does."""
    repository = f"{replica.url}/v2/library/app"
    index = json.loads(get(f"{repository}/manifests/{tag}"))
    manifest = json.loads(get(f"{repository}/manifests/{index['manifests'][0]['digest']}"))
    for descriptor in (manifest["config"], *manifest["layers"]):
        assert len(get(f"{repository}/blobs/{descriptor['digest']}")) == descriptor["size"]


def test_returns_data__every_query_after_cold_and_warm_pulls(tmp_path: Path) -> None:
    with (
        Upstream() as upstream,
        Replica(tmp_path / "store", upstreams={"docker.io": upstream.url}) as replica,
        Prometheus(tmp_path, replica.admin_url.removeprefix("http://")) as prometheus,
    ):
        missing = dict(queries())
        pulls = 0
        deadline = time.monotonic() + DATA_SECONDS
        while missing and time.monotonic() < deadline:
            pulls += 1
            upstream.push_image("library/app", str(pulls), layers=(100_000, 200_000), seed=pulls)
            pull(replica, str(pulls))
            pull(replica, str(pulls))
            time.sleep(0.5)
            missing = {title: query for title, query in missing.items() if not prometheus.query(query)}
        assert not missing, prometheus.targets()


def test_exists__every_metric_of_the_dashboard() -> None:
    registry = new_registry()
    DoorMetrics(registry)
    HubMetrics(registry)
    existing = set()
    for family in registry.collect():
        existing |= {
            f"{family.name}{ending}"
            for ending in {"counter": ["_total"], "histogram": ["_bucket"]}.get(family.type, [""])
        }
    shown = set(re.findall(r"layover_\w+", " ".join(query for _, query in queries())))
    assert shown
    assert not shown - existing


def test_shows__every_metric_that_exists() -> None:
    registry = new_registry()
    DoorMetrics(registry)
    HubMetrics(registry)
    text = DASHBOARD.read_text()
    assert [family.name for family in registry.collect() if family.name not in text] == []


def test_fits__panels_on_the_grid() -> None:
    taken: set[tuple[int, int]] = set()
    identifiers = [panel["id"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    assert len(identifiers) == len(set(identifiers))
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_explains_itself__every_panel(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert all('instance=~"$instance"' in target["expr"] for target in panel["targets"])
