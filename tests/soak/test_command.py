from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests.soak import ROOT
from tests.soak.command import command_line, finish, growth, spread, unmet

SOAKS = ("attacks", "cameras", "endurance", "kill", "laps", "latency", "reconnect", "stops", "subscribers")


def test_soaks_import_this_checkout_whatever_is_installed(tmp_path: Path) -> None:
    for package in ("apexstream", "engine"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    script = "import tests.soak, apexstream, engine; print(apexstream.__file__, engine.__file__)"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}"}
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert found.split() == [f"{ROOT / 'tools/apexstream/__init__.py'}", f"{ROOT / 'engine/__init__.py'}"]


def test_a_run_ends_with_its_record_and_its_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "record.json"
    with pytest.raises(typer.Exit) as ended:
        finish({"figure": 1}, [], path)
    assert ended.value.exit_code == 0
    assert json.loads(path.read_text(encoding="utf-8")) == {"figure": 1, "problems": []}
    with pytest.raises(typer.Exit) as ended:
        finish({}, ["too slow [median]"], None)
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err == "too slow [median]\n"


def test_what_is_not_met_is_listed() -> None:
    assert unmet({"memory grew": False, "threads grew": True}) == ["memory grew"]


def test_growth_is_that_of_medians() -> None:
    assert growth([1.0, 2.0, 9.0], [3.0]) == {"warm": 2.0, "end": 3.0, "growth": 0.5}


def test_a_spread_is_counted() -> None:
    assert spread([], 1) == {"count": 0}
    assert spread([3.0, 1.0, 2.04], 1) == {"count": 3, "p50": 2.0, "p95": 3.0, "worst": 3.0}


def test_help_keeps_the_lines_of_indented_blocks() -> None:
    app = command_line(lambda: None, "What it does.\n\n    first\n    second\n\nAnd a paragraph that\ngoes on.")
    shown = CliRunner().invoke(app, ["--help"]).output
    assert "first\n" in shown and "    second\n" in shown and "paragraph that goes on" in shown


@pytest.mark.parametrize("name", SOAKS)
def test_every_soak_has_help(name: str) -> None:
    module = import_module(f"tests.soak.{name}")
    result = CliRunner().invoke(module.app, ["--help"])
    assert result.exit_code == 0
    assert str(module.__doc__).split()[0] in result.output
