from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from mirror.config import Settings, load

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "layover.service"


def service() -> dict[str, list[str]]:
    """The values of each key of the unit's `[Service]` section."""
    found: dict[str, list[str]] = defaultdict(list)
    section = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


def test_keeps__store_in_its_state_directory() -> None:
    unit = service()
    variables = dict(value.replace("%S", "/var/lib").split("=", 1) for value in unit["Environment"])
    assert unit["StateDirectory"] == ["layover"]
    assert load(None, variables).store.path == Path("/var/lib/layover")


def test_starts__serve_without_root() -> None:
    unit = service()
    assert unit["ExecStart"] == ["/opt/layover/bin/layover serve"]
    assert unit["DynamicUser"] == ["yes"]
    assert unit["CapabilityBoundingSet"] == [""]
    assert unit["NoNewPrivileges"] == ["yes"]
    assert unit["ProtectSystem"] == ["strict"]


def test_restarts__except_with_a_wrong_configuration() -> None:
    unit = service()
    assert unit["Restart"] == ["always"]
    assert unit["RestartPreventExitStatus"] == ["2"]


def test_waits__longer_than_the_shutdown_grace() -> None:
    [wait] = service()["TimeoutStopSec"]
    assert wait.endswith("s")
    assert int(wait[:-1]) > Settings().server.shutdown_grace
