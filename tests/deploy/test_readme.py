from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from mirror.cli.client_config import KINDS, parse_address, render
from mirror.config import BUILT_IN, load

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def blocks(language: str) -> list[str]:
    """The fenced blocks in `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def rendered(kind: str) -> dict[str, str]:
    """What `layover client-config` prints for the address that the page uses."""
    files = render(kind, parse_address("http://mirror.example:5000"), tuple(BUILT_IN))
    return {file.path: file.content for file in files}


def test_shows__what_client_config_prints() -> None:
    containerd, podman, *_ = blocks("toml")
    assert blocks("json") == [rendered("docker")["/etc/docker/daemon.json"]]
    assert containerd == rendered("containerd")["/etc/containerd/certs.d/_default/hosts.toml"]
    assert podman == next(iter(rendered("podman").values())).split("\n\n")[0] + "\n"


def test_names__every_kind() -> None:
    assert [kind for kind in KINDS if f"`{kind}`" not in README] == []


def test_loads__sample_configuration(tmp_path: Path) -> None:
    single, fleet = blocks("toml")[-2:]
    secret = tmp_path / "secret"
    secret.write_text("of the fleet")
    sample = tmp_path / "layover.toml"
    sample.write_text(single + fleet.replace("/run/secrets/layover-fleet", str(secret)))
    settings = load(sample, {})
    assert str(settings.store.path) == tomllib.loads(sample.read_text())["store"]["path"]
    assert "registry.example" in settings.upstreams.names
    assert settings.fleet.region == "frankfurt"


@pytest.mark.parametrize("page", PAGES)
def test_links__only_to_what_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^):]+)\)", text) + re.findall(r"`((?:deploy|grafana|tests|mirror|docs)/[^`]*)`", text)
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_names__only_make_targets_that_exist(page: str) -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make (\w+)", (ROOT / page).read_text(), flags=re.MULTILINE))
    assert named <= targets


def test_fits__contributing_on_two_screens() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 90
