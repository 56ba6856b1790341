from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.flowmaps import write_dataset
from tools.cli import main

TINY = """name = "tiny"
[model]
name = "ahmsa"
members = 2
options = { width = 8, heads = 2, repeats = [1, 1, 1] }
[fit]
epochs = 2
batch = 12
learning_rate = 1e-3
"""


def exits(*args: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main(args)
    return caught.value.code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(TINY)
    write_dataset(tmp_path / "set", per_class=1)
    return tmp_path


def train(folder: Path, *more: str) -> object:
    return exits("train", "--config", f"{folder}/tiny.toml", "--data", f"{folder}/set", "--out", f"{folder}/run", *more)


def test_a_run_is_written_with_what_it_was_fitted_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(folder, "--seed", "5") == 0
    assert "fitted 2 x ahmsa to 12 maps" in capsys.readouterr().out
    assert json.loads((folder / "run" / "recipe.json").read_text())["seed"] == 5
    assert len((folder / "run" / "losses.csv").read_text().splitlines()) == 1 + 2 * 2
    assert json.loads((folder / "run" / "data.json").read_text())["subjects"] == 4


def test_a_finished_run_is_not_written_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "fitted.pt").write_bytes(b"precious")
    assert train(folder) == 1
    assert "holds a finished run already" in capsys.readouterr().err
    assert (folder / "run" / "fitted.pt").read_bytes() == b"precious"


@pytest.mark.parametrize("gone", ["tiny.toml", "set/combined_3_class2_for_optical_flow.csv"])
def test_what_is_missing_is_told_in_one_sentence(folder: Path, gone: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / gone).unlink()
    assert train(folder) == 1
    told = capsys.readouterr().err
    assert f"{gone} cannot be read: No such file" in told and "Traceback" not in told
