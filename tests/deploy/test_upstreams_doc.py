"""What docs/upstreams.md shows can be pasted, and no registry is missing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mirror.config import BUILT_IN, load

_PAGE = (Path(__file__).parents[2] / "docs" / "upstreams.md").read_text()
_SECTIONS = re.split(r"^## ", _PAGE, flags=re.MULTILINE)
_BLOCK = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BLOCKS = [
    pytest.param(block, id=f"{section.partition(chr(10))[0]} {number}")
    for section in _SECTIONS
    for number, block in enumerate(_BLOCK.findall(section))
]
_REGISTRIES = (
    "Docker Hub",
    "GHCR",
    "Quay",
    "Amazon ECR",
    "Amazon ECR Public",
    "Google Artifact Registry and gcr.io",
    "registry.k8s.io",
    "Azure Container Registry",
    "Microsoft Artifact Registry",
    "GitLab",
    "Harbor",
    "Artifactory",
    "CNCF distribution",
    "nvcr.io",
    "Red Hat",
)


def tables(text: str) -> dict[str, Any]:
    """The upstreams that some TOML configures."""
    found: dict[str, Any] = tomllib.loads(text)["upstreams"]
    return found


@pytest.mark.parametrize("block", _BLOCKS)
def test_loads__every_block(block: str, tmp_path: Path) -> None:
    sample = tmp_path / "layover.toml"
    sample.write_text(block)
    upstreams = load(sample, {}).upstreams
    for name, table in tables(block).items():
        found = upstreams.lookup(name.replace("*", "x"))
        assert found is not None
        assert found.label == name
        assert all(getattr(found, key) for key in table)
        assert found.has_credentials == bool(table.keys() & {"username", "docker_config", "provider"})


@pytest.mark.parametrize("registry", _REGISTRIES)
def test_has_a_section__for_each_registry(registry: str) -> None:
    (section,) = (each for each in _SECTIONS if each.partition("\n")[0] == registry)
    assert _BLOCK.search(section) or "Nothing to configure" in section
    assert "\n- Layover: " in section


@pytest.mark.parametrize("name", BUILT_IN)
def test_names__every_registry_that_is_known_from_the_start(name: str) -> None:
    assert name in _PAGE


def test_shows__no_secret_in_the_open() -> None:
    assert not [block for block in _BLOCK.findall(_PAGE) for table in tables(block).values() if "password" in table]


def test_links__only_to_pages_that_exist() -> None:
    folder = Path(__file__).parents[2] / "docs"
    assert [link for link in re.findall(r"\]\(([^)#:]+)\)", _PAGE) if not (folder / link).exists()] == []
