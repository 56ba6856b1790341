from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from engine.errors import ConfigError
from lab.recipes import trial
from tests.flowmaps import write_dataset
from training.answers import Answers

TINY = """
name = "tiny"
[model]
name = "ahmsa"
members = 2
input = "whole"
options = {{ width = 8, heads = 2, repeats = [1, 1, 1] }}
[fit]
epochs = {epochs}
batch = 8
learning_rate = 1e-3
"""


def test_recipes_are_compared_on_development_subjects(tmp_path: Path) -> None:
    people = tuple((d, f"{d}{i}") for d in ("smic", "samm") for i in range(4))
    data = write_dataset(tmp_path / "set", per_class=1, subjects=people)
    for name, epochs in (("short", 1), ("long", 2)):
        (tmp_path / f"{name}.toml").write_text(TINY.format(epochs=epochs))
    recipes = [str(tmp_path / f"{name}.toml") for name in ("short", "long")]
    app = typer.Typer()
    app.command()(trial.main)
    arguments = [*recipes, "--data", str(data), "--out", str(tmp_path / "out"), "--groups", "2"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    *_, first, second = done.stdout.splitlines()
    assert first.startswith("| short | ") and second.startswith("| long | ") and first.count(" ± ") == 6
    lines = (tmp_path / "out" / "long" / "folds.jsonl").read_text().splitlines()
    folds = [json.loads(line)["fold"] for line in lines[1:]]
    assert len(folds) == 2 * 2 and len({name for fold in folds for name in fold["names"]}) == 3 * len(people) // 2
    again = CliRunner().invoke(app, arguments)
    assert again.stdout.splitlines()[-2:] == [first, second] and len(lines) == 1 + len(folds)


def test_a_line_has_the_mean_and_the_spread_over_seeds() -> None:
    truth = np.array([0, 1, 2, 0])
    sure, flat = np.eye(3)[truth] * 50, np.zeros((4, 3))
    names = ("a", "b", "c", "d")
    seeds = [Answers(seed, names, ("smic",) * 4, names, truth, logits) for seed, logits in enumerate((sure, flat))]
    right, blind = 1.0, (2 * 2 / (2 + 4)) / 3
    mean, spread = np.mean([right, blind]), np.std([right, blind], ddof=1)
    reported = trial.row("x", seeds[:1]).split(" | ")
    assert reported[:5] == ["| x", "1.000", "1.000", "0.000", "not kept"]
    both = replace(seeds[0], members=np.stack((sure, flat), 1))
    assert trial.row("x", [both]).split(" | ")[4] == f"{mean:.3f} ± {spread:.3f}"
    assert trial.row("x", seeds).split(" | ")[1] == f"{mean:.3f} ± {spread:.3f}"
    assert trial.likelihood(flat, truth) == pytest.approx(np.log(3))


def test_recipes_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.toml").write_text(TINY.format(epochs=1))
    app = typer.Typer()
    app.command()(trial.main)
    paths = [f"{tmp_path}/{folder}/one.toml" for folder in ("a", "b")]
    refused = CliRunner().invoke(app, [*paths, "--data", f"{tmp_path}/none", "--out", f"{tmp_path}/out"]).exception
    assert isinstance(refused, ConfigError) and "files of the same name (one, one)" in str(refused)


def test_an_error_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(TINY.format(epochs=1))
    options = [f"{tmp_path}/one.toml", "--data", f"{tmp_path}/none", "--out", f"{tmp_path}/out"]
    command = [sys.executable, "-m", "lab.recipes.trial", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "there is no folder" in done.stderr and "Traceback" not in done.stderr
