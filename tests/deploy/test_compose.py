from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from mirror.config import Settings
from tests.programs import require

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose"


def read(name: str) -> Any:
    """A YAML file of the folder."""
    return yaml.safe_load((COMPOSE / name).read_text())


def services() -> dict[str, Any]:
    """What compose starts."""
    found: dict[str, Any] = read("compose.yaml")["services"]
    return found


def mounts(service: str) -> dict[str, str]:
    """The service's volumes: what is mounted by where."""
    parts = [volume.split(":") for volume in services()[service]["volumes"]]
    return {part[1]: part[0] for part in parts}


def test_mounts__only_what_exists() -> None:
    volumes = read("compose.yaml")["volumes"]
    for service in services():
        for source in mounts(service).values():
            assert source in volumes if "/" not in source else (COMPOSE / source).exists()


def test_builds__the_image_of_this_project() -> None:
    build = services()["layover"]["build"]
    assert (COMPOSE / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()


def test_waits__longer_than_the_shutdown_grace() -> None:
    grace = services()["layover"]["stop_grace_period"]
    assert grace.endswith("s")
    assert int(grace[:-1]) > Settings().server.shutdown_grace


def test_publishes__admin_port_on_loopback_alone() -> None:
    assert services()["layover"]["ports"] == ["5000:5000", "127.0.0.1:5001:5001"]


def test_scrapes__the_admin_port_of_the_replica() -> None:
    [job] = read("prometheus.yml")["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["layover:5001"]}]
    subprocess.run([require("promtool"), "check", "config", str(COMPOSE / "prometheus.yml")], check=True)


def test_provisions__dashboard_from_its_folder() -> None:
    [provider] = read("grafana/dashboards.yaml")["providers"]
    assert (COMPOSE / mounts("grafana")[provider["options"]["path"]]).resolve() == ROOT / "grafana"
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/overview.json"
    assert json.loads((ROOT / "grafana" / "overview.json").read_text())["title"]


def test_provisions__datasource_at_the_prometheus_of_the_file() -> None:
    [source] = read("grafana/datasources.yaml")["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    assert "127.0.0.1:9090:9090" in services()["prometheus"]["ports"]
