"""The command line's root: what each wrong word gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mirror.cli import main

PLANNED = ("warm", "verify")


@pytest.mark.parametrize("command", PLANNED)
def test_says_not_yet__for_a_promised_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "docker.io/library/alpine:3", "--json"]) == 2
    assert capsys.readouterr().err == f"layover: {command}: not available yet\n"


@pytest.mark.parametrize(
    "words", [[], ["nonsense"], ["serve", "extra"], ["serve", "--nonsense"], ["check-config", "--config"]]
)
def test_refuses__wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert "usage: layover" in said.err
    assert said.out == ""


def test_runs__as_a_module_and_as_a_program() -> None:
    program = Path(sys.executable).parent / "layover"
    outputs = [
        subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
        for command in ([sys.executable, "-m", "mirror"], [str(program)])
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].startswith("layover ")
