"""`layover check-config`: what `serve` would say, without serving."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mirror.cli import main


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("LAYOVER_"):
            monkeypatch.delenv(name)


def check(file: Path, text: str) -> int:
    file.write_text(text)
    return main(["check-config", "--config", str(file)])


def test_accepts__right_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = '[upstreams."registry.example"]\nurl = "http://127.0.0.1:1"\n'
    assert check(tmp_path / "layover.toml", text) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert len(said.out.splitlines()) == 1


def test_touches_nothing__of_the_store(tmp_path: Path) -> None:
    path = tmp_path / "store"
    assert check(tmp_path / "layover.toml", f'[store]\npath = "{path}"\n') == 0
    assert not path.exists()


@pytest.mark.parametrize(
    "text",
    ["[server]\nworkers = 'x'\n", "nonsense = 1\n", "[fleet]\nredis_url = 'redis://x'\n", "not toml"],
    ids=["value", "key", "no secret", "syntax"],
)
def test_exits_2_in_one_line__for_a_wrong_one(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "layover.toml"
    assert check(file, text) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"layover: {file}: ")
    assert len(said.err.splitlines()) == 1


def test_exits_2__for_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "none.toml"
    assert main(["check-config", "--config", str(file)]) == 2
    assert capsys.readouterr().err == f"layover: {file}: cannot be read: No such file or directory\n"


def test_reads_the_environment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LAYOVER_LOG__LEVEL", "loud")
    assert main(["check-config"]) == 2
    assert capsys.readouterr().err.startswith("layover: LAYOVER_LOG__LEVEL: log.level: ")


@pytest.mark.parametrize("content", [None, "", "no certificate"], ids=["missing", "empty", "nonsense"])
def test_exits_2__for_a_ca_file_that_cannot_be_used(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    assert check(tmp_path / "layover.toml", f'[upstreams."a.example"]\nca_file = "{file}"\n') == 2
    said = capsys.readouterr().err
    assert "ca_file" in said
    assert str(file) in said
    assert len(said.splitlines()) == 1
