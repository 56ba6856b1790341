from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.errors import OutputError
from engine.models import build
from lab.recipes import ablate
from tests.flowmaps import write_dataset
from training.recipe import Recipe, read_recipe

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return read_recipe(ROOT / "configs" / "train" / "ahmsa-ablation.toml")


@pytest.mark.parametrize(("subject", "name"), [(s, n) for s, variants in ablate.VARIANTS.items() for n in variants])
def test_every_variant_is_a_recipe_whose_network_can_be_built(recipe: Recipe, subject: str, name: str) -> None:
    change = ablate.VARIANTS[subject][name]
    tried = ablate.varied(recipe, change)
    build(tried.model.name, 3, **tried.model.options)
    assert (tried == recipe) == (name in ("3 (patches of 7)", "(2, 2, 8)", "64"))
    other = ablate.varied(recipe, {"options": {"repeats": (1, 1, 1), "patch": 14}, "fit": {"batch": 16}})
    again = ablate.varied(other, change)
    assert again != other, "whatever is varied, a row is what its name says"


def test_the_variants_are_judged_on_development_subjects_and_shown_as_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = tuple((d, f"{d}{i}") for d in ("smic", "samm") for i in range(10))
    data = write_dataset(tmp_path / "set", per_class=1, subjects=people)
    tiny = {"options": {"repeats": (1, 1, 1), "width": 16, "heads": 2}, "fit": {"epochs": 1}}
    monkeypatch.setattr(ablate, "VARIANTS", {"size": {"tiny": tiny, "tinier": {**tiny, "fit": {"epochs": 1, "batch": 8}}}})
    arguments = ["--data", str(data), "--out", str(tmp_path / "out"), "--summary", str(tmp_path / "s.json"), "--seeds", "2"]
    app = ablate.typer.Typer()
    app.command()(ablate.main)
    done = CliRunner().invoke(app, [*arguments, "--config", str(ROOT / "configs/train/ahmsa-ablation.toml")])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "s.json").read_text())["size"]["tiny"]
    assert 0 <= found["uf1"]["mean"] <= 1 and found["uf1"]["spread"] is not None and found["parameters"] > 1000
    assert "| size | tinier |" in done.output
    folds = (tmp_path / "out" / "size-tiny" / "folds.jsonl").read_text().splitlines()
    names = {n for line in folds[1:] for n in json.loads(line)["fold"]["names"]}
    assert len(folds) == 1 + 2 * ablate.GROUPS and len(names) == 3 * len(people) // 2


def test_a_summary_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    arguments = ["--data", f"{tmp_path}/none", "--out", f"{tmp_path}/out", "--summary", str(tmp_path)]
    app = ablate.typer.Typer()
    app.command()(ablate.main)
    refused = CliRunner().invoke(app, arguments).exception
    assert isinstance(refused, OutputError) and str(refused).endswith("; choose another file for --summary")
    assert f"{tmp_path} cannot be written" in str(refused)


def test_one_seed_has_no_spread() -> None:
    one = {"parameters": 1200, "uf1": {"mean": 0.5, "spread": None}, "uar": {"mean": 0.25, "spread": None}}
    two = {**one, "uf1": {"mean": 0.5, "spread": 0.0}}
    lines = ablate.table({"size": {"one": one, "two": two}}).splitlines()
    assert lines[2] == "| size | one | 1,200 | 0.500 | 0.250 |" and "0.500 ± 0.000" in lines[3]


def test_what_is_missing_is_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lab.recipes.ablate", "--data", f"{tmp_path}/none", "--out", f"{tmp_path}/out"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == f"apexstream: error: there is no folder {tmp_path}/none; a folder of flow maps is expected\n"
