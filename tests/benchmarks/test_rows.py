"""Rows still run: small and short, for what they print and not for their figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.rows import EVERY

_ROWS = ("blob", "line", "cut")


def test_prints_a_table_and_json__quick_rows(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "tests.benchmarks", "--quick", "--servers", "layover", "--rows", ",".join(_ROWS))
    options = ("--json", str(tmp_path / "figures.json"), "--folder", str(tmp_path))
    output = subprocess.run((*command, *options), capture_output=True, text=True, timeout=100, check=False)
    assert output.returncode == 0, output.stdout + output.stderr
    told = json.loads((tmp_path / "figures.json").read_text())
    assert not told["broken"]
    verdicts = {(row["name"].split(",")[0], row["unit"]): row["verdict"] for row in told["rows"]}
    assert verdicts["every blob answer cut after 5 MiB", "succeed"] == "met"
    assert verdicts["every blob answer cut after 5 MiB", "x upstream"] == "met"
    assert all(row["values"]["layover"] for row in told["rows"])
    assert all(row["name"] in output.stdout for row in told["rows"])


def test_describes_itself__every_row() -> None:
    assert all(row.__doc__ for row in EVERY.values())
