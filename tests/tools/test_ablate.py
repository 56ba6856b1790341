from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.models import build
from tests.flowmaps import write_dataset
from tools import ablate
from training.recipe import Recipe, read_recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return read_recipe(ROOT / "configs" / "train" / "ahmsa-ablation.toml")


@pytest.mark.parametrize(("subject", "name"), [(s, n) for s, variants in ablate.VARIANTS.items() for n in variants])
def test_every_variant_is_a_recipe_whose_network_can_be_built(recipe: Recipe, subject: str, name: str) -> None:
    change = ablate.VARIANTS[subject][name]
    tried = ablate.varied(recipe, change)
    build(tried.model.name, 3, **tried.model.options)
    assert (tried == recipe) == (not change)


def test_the_variants_are_judged_on_development_subjects_and_told_as_a_table(
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
